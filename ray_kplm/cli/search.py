"""Commands that search configurations: choose before training; ablate and sweep by many runs."""

from __future__ import annotations

import argparse
from typing import Any

from ray_kplm.cli import checks
from ray_kplm.cli.console import Result, add_json, command
from ray_kplm.cli.parser import Number
from ray_kplm.ranges import PROCESSES, REDUCTIONS, ROUNDS, SEEDS, TRIALS


def add(commands: Any) -> None:
    """Add the commands to the parser."""
    _add_choose(commands)
    _add_ablate(commands)
    _add_sweep(commands)


_CHOOSE_EXAMPLES = """
Two random halves of the images are clustered to K, and both label the same keypoints: their agreement is the adjusted Rand
index. The excess is what it has beyond that of keypoints without structure. K is the largest number whose excess is within a
standard error of the best, and whose landmarks are found in two thirds of the images on average. M follows from K and the
number of keypoints. In a run,
  kplm train CONFIG dataset=DATASET run=RUN method.landmarks=auto method.clusters=auto
chooses likewise before anything is trained, and records the numbers and the evidence in RUN/choice.

Examples:
  kplm choose data/mine
  kplm choose data/mine faces_cpu keypoints.detector=orb --folder runs/choice_orb
"""


def _add_choose(commands: Any) -> None:
    text = (
        "Choose the numbers of landmarks and of training clusters from the images, in minutes, without training. Prints the "
        "evidence and how sure it is, and draws it."
    )
    parser = command(commands, "choose", _choose, text, _CHOOSE_EXAMPLES)
    parser.add_argument("dataset", metavar="DATASET", help="the dataset that `kplm ingest` made")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="CONFIG key=value",
        help="a YAML file or the name of a ready configuration, by default none; and changes to it",
    )
    parser.add_argument("--folder", default="runs/choose", help="where the evidence and its picture are written")
    add_json(parser, "the numbers and the evidence")


def _choose(options: argparse.Namespace) -> Result:
    from ray_kplm.config import load_config

    given: list[str] = options.overrides
    config = given.pop(0) if given and "=" not in given[0] else None
    checks.training(load_config(config, [*given, f"dataset={options.dataset}", f"run={options.folder}"]), is_run=False)
    with options.console.loading():
        from ray_kplm.experiments.choice import PICTURE, choose_numbers
        from ray_kplm.report.choice_table import choice_table
    choice = choose_numbers(options.dataset, config, given, options.folder, options.console.show)
    numbers = f"method.landmarks={choice['landmarks']} method.clusters={choice['clusters']}"
    files = f"picture: {options.folder}/{PICTURE}   next: kplm train CONFIG dataset={options.dataset} run=NEW {numbers}"
    return Result(f"{choice_table(choice)}\n{files}", choice)


def _add_ablate(commands: Any) -> None:
    text = (
        "Run and score all combinations of a few values, beside the thesis' figures. The same command again continues."
    )
    parser = command(commands, "ablate", _ablate, text)
    parser.add_argument(
        "config", metavar="CONFIG", help="a YAML file, or the name of a ready configuration: what all runs share"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="dataset=DIR run=DIR ...")
    parser.add_argument(
        "--over", nargs="+", required=True, metavar="AXIS",
        help="what varies, all combinations: kind, stages, negatives, correspondence, clusters, keypoints, mirror, "
        "flip_at_test, norm, noise, warp, or a path of the configuration with values, as method.landmarks=10,20",
    )  # fmt: skip
    parser.add_argument(
        "--seeds", type=Number(int, SEEDS), nargs="+", default=[0], help="each combination is run with each seed"
    )
    parser.add_argument("--max-concurrent", type=Number(int, PROCESSES), default=1, help="runs side by side")
    add_json(parser, "the rows")


_SWEEP_EXAMPLES = """
What is searched: any path of the configuration (docs/configuration.md has them all), with a list or a distribution of Ray Tune
  A,B,C                              a list                              stage1.batch_size=8,16,32
  uniform:LOW:HIGH                   numbers                             augment.warp=uniform:0:0.08
  loguniform:LOW:HIGH                numbers, by their logarithm         stage1.learning_rate=loguniform:1e-4:2e-3
  randint:LOW:HIGH, lograndint:...   whole numbers from LOW to HIGH - 1  method.clusters=lograndint:30:301
or a YAML file of such: `stage1.batch_size: [8, 16, 32]`, `stage1.learning_rate: loguniform:1e-4:2e-3`.

Examples:
  All nine combinations, one after the other or side by side as there is room:
    kplm sweep faces_cpu dataset=data/mine run=runs/sweep \\
      --over stage1.batch_size=8,16,32 method.clusters=50,100,200
  40 trials suggested by Optuna (pip install "ray-kplm[sweep]"), weak ones stopped after one or more rounds:
    kplm sweep CONFIG dataset=data/mine run=runs/sweep --search tpe --samples 40 --asha \\
      --over stage1.learning_rate=loguniform:1e-4:2e-3 stage1.batch_size=8,16,32,64 method.clusters=randint:50:251
  The best one, trained longer:
    kplm train runs/sweep/best.yaml run=runs/long stage2.iterations=50000

The same command again continues: finished and stopped trials stay, interrupted and failed ones continue in their run
directories; a larger --samples adds trials. RUN/index.html has the results so far, RUN/tune is Ray Tune's experiment. The
objective is the forward NME where the dataset has annotated test images, else a score that needs no annotation (kplm bench
quality). Lower is better; every trial reports it after every round.
"""


def _add_sweep(commands: Any) -> None:
    text = "Search the configuration that finds the best landmarks by Ray Tune, side by side as the cluster has room."
    parser = command(commands, "sweep", _sweep, text)
    parser.epilog = _SWEEP_EXAMPLES
    parser.add_argument(
        "config", metavar="CONFIG", help="a YAML file, or the name of a ready configuration: what all trials share"
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="dataset=DIR run=DIR (the sweep's folder) ..."
    )
    parser.add_argument("--over", nargs="+", required=True, metavar="PATH=WHAT", help="what is searched, see below")
    parser.add_argument(
        "--search", choices=["grid", "random", "tpe"],
        help="all combinations, random draws, or OptunaSearch of Tune, a tree-structured Parzen estimator; by default a grid "
        "where all are lists, else random",
    )  # fmt: skip
    parser.add_argument(
        "--samples", type=Number(int, TRIALS), default=20, help="number of trials of random and tpe search"
    )
    parser.add_argument(
        "--max-concurrent",
        type=Number(int, PROCESSES),
        help="trials side by side; by default as many as the cluster has CPUs and GPUs for",
    )
    parser.add_argument(
        "--seed",
        type=Number(int, SEEDS),
        default=0,
        help="seed of the search; that of the runs is the configuration's",
    )
    parser.add_argument(
        "--objective", choices=["auto", "forward_nme", "label_free"], default="auto", help="what is minimised"
    )
    parser.add_argument(
        "--asha", action="store_true", help="stop weak trials early, by Tune's ASHAScheduler over the rounds"
    )
    parser.add_argument(
        "--grace-rounds",
        type=Number(int, ROUNDS),
        default=1,
        help="with --asha: first round after which trials are compared",
    )
    parser.add_argument(
        "--reduction",
        type=Number(float, REDUCTIONS),
        default=3.0,
        help="with --asha: the best 1/REDUCTION of the trials go on",
    )
    add_json(parser, "best and trials")


def _ablate(options: argparse.Namespace) -> Result:
    from ray_kplm.config import load_config

    config = load_config(options.config, options.overrides)
    checks.training(config, is_run=False)
    with options.console.loading():
        from ray_kplm.experiments.ablation import ablate, plain, table_lines
    rows = ablate(
        config, options.over, options.seeds, max_concurrent=options.max_concurrent,
        progress=options.console.show,
    )  # fmt: skip
    return Result("\n".join(table_lines(rows)), {"rows": plain(rows)})


def _sweep(options: argparse.Namespace) -> Result:
    from ray_kplm.config import load_config

    config = load_config(options.config, options.overrides)
    checks.training(config, is_run=False)
    with options.console.loading():
        from ray_kplm.experiments.pages import sweep_table
        from ray_kplm.experiments.sweep import SweepOptions, sweep
        from ray_kplm.runtime.tune import Halving

    names = ("over", "search", "samples", "max_concurrent", "seed", "objective")
    halving = Halving(options.grace_rounds, options.reduction) if options.asha else None
    chosen = SweepOptions(**{name: getattr(options, name) for name in names}, halving=halving)
    results = sweep(config, chosen, options.console.show)
    files = f"picture: {config.run}/index.html   next: kplm train {config.run}/best.yaml run=NEW"
    return Result(f"{sweep_table(results)}\n{files}", {name: results[name] for name in ("best", "trials")})
