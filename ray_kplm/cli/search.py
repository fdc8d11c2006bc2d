"""Many runs: ablate, sweep."""

from __future__ import annotations

import argparse
from typing import Any

from ray_kplm.cli.console import Result, add_json, command


def add(commands: Any) -> None:
    """Declare them."""
    _add_ablate(commands)
    _add_sweep(commands)


def _add_ablate(commands: Any) -> None:
    text = (
        "Runs that differ in one value each, scored, the thesis' figures beside ours. The same command again continues."
    )
    parser = command(commands, "ablate", _ablate, text)
    parser.add_argument(
        "config", metavar="CONFIG", help="a YAML file or a ready one's name; the runs go below its run directory"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="dataset=DIR run=DIR ...")
    parser.add_argument(
        "--over", nargs="+", required=True, metavar="AXIS",
        help="what varies, all combinations: kind, stages, negatives, correspondence, clusters, keypoints, flip, flip_at_test, "
        "norm, noise, warp, or a path of the configuration with values, as method.landmarks=10,20",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="each combination is run with each seed")
    parser.add_argument("--max-concurrent", type=int, default=1, help="runs side by side")
    add_json(parser, "the rows")


_SWEEP_EXAMPLES = """
What is searched: any path of the configuration (ray_kplm/config.py has them all), with
  A,B,C                              a list                            stage1.batch_size=8,16,32
  uniform:LOW:HIGH                   numbers, both ends included       augment.warp=uniform:0:0.08
  loguniform:LOW:HIGH                the same by their logarithm       stage1.learning_rate=loguniform:1e-4:2e-3
  randint:LOW:HIGH, lograndint:...   whole numbers                     method.clusters=lograndint:30:300
or a YAML file of such: `stage1.batch_size: [8, 16, 32]`, `stage1.learning_rate: loguniform:1e-4:2e-3`.

Examples:
  All nine combinations, one after the other or side by side as there is room:
    kplm sweep faces_cpu dataset=data/mine run=runs/sweep \\
      --over stage1.batch_size=8,16,32 method.clusters=50,100,200
  40 trials that learn from each other (pip install "ray-kplm[sweep]"), weak ones stopped after a round or more:
    kplm sweep CONFIG dataset=data/mine run=runs/sweep --search tpe --samples 40 --asha \\
      --over stage1.learning_rate=loguniform:1e-4:2e-3 stage1.batch_size=8,16,32,64 method.clusters=randint:50:250
  The best one, trained longer:
    kplm train runs/sweep/best.yaml run=runs/long stage2.iterations=50000

The same command again continues: finished and stopped trials stay, interrupted ones go on in their run directories; a larger
--samples adds trials. Look at RUN/index.html at any time. The objective is the forward NME where the dataset has annotated test
images, else a score that needs no annotation (kplm bench quality). Lower is better; every trial reports it after every round.
"""


def _add_sweep(commands: Any) -> None:
    text = "Search the configuration that finds the best landmarks: many runs, scored, side by side as there is room."
    parser = command(commands, "sweep", _sweep, text)
    parser.epilog = _SWEEP_EXAMPLES
    parser.add_argument(
        "config", metavar="CONFIG", help="a YAML file, or a ready one's name: what all trials have in common"
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="dataset=DIR run=DIR (the sweep's folder) ..."
    )
    parser.add_argument("--over", nargs="+", required=True, metavar="PATH=WHAT", help="what is searched, see below")
    parser.add_argument(
        "--search", choices=["grid", "random", "tpe"],
        help="all combinations, draws, or Optuna's tree-structured Parzen estimator; by default a grid where all are lists, "
        "else random",
    )  # fmt: skip
    parser.add_argument("--samples", type=int, default=20, help="trials in all, of random and tpe search")
    parser.add_argument(
        "--max-concurrent",
        type=int,
        help="trials side by side; by default as many as the cluster has CPUs and GPUs for now",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the search; that of the runs is the configuration's seed"
    )
    parser.add_argument(
        "--objective", choices=["auto", "forward_nme", "label_free"], default="auto", help="what is minimised"
    )
    parser.add_argument(
        "--asha", action="store_true", help="stop weak trials early: asynchronous successive halving over the rounds"
    )
    parser.add_argument("--grace-rounds", type=int, default=1, help="with --asha: rounds before trials are compared")
    parser.add_argument(
        "--reduction", type=float, default=3.0, help="with --asha: the best 1/REDUCTION go on each time"
    )
    add_json(parser, "best and trials")


def _ablate(options: argparse.Namespace) -> Result:
    from ray_kplm.config import load_config
    from ray_kplm.experiments.ablation import ablate, plain, table_lines

    config = load_config(options.config, options.overrides)
    rows = ablate(
        config, options.over, options.seeds, max_concurrent=options.max_concurrent,
        progress=options.console.show,
    )  # fmt: skip
    return Result("\n".join(table_lines(rows)), {"rows": plain(rows)})


def _sweep(options: argparse.Namespace) -> Result:
    from ray_kplm.config import load_config
    from ray_kplm.experiments.halving import Halving
    from ray_kplm.experiments.pages import sweep_table
    from ray_kplm.experiments.sweep import SweepOptions, sweep

    names = ("over", "search", "samples", "max_concurrent", "seed", "objective")
    halving = Halving(options.grace_rounds, options.reduction) if options.asha else None
    chosen = SweepOptions(**{name: getattr(options, name) for name in names}, halving=halving)
    config = load_config(options.config, options.overrides)
    results = sweep(config, chosen, options.console.show)
    files = f"picture: {config.run}/index.html   next: kplm train {config.run}/best.yaml run=NEW"
    return Result(f"{sweep_table(results)}\n{files}", {name: results[name] for name in ("best", "trials")})
