"""What is searched, read from the command line and from YAML, and what is refused."""

import pytest

from ray_kplm.config import Config, load_config
from ray_kplm.errors import ConfigError
from ray_kplm.experiments.space import Choice, Interval, configured, read_interval, read_space

BASE = load_config(None, ["dataset=d", "run=r", "method.landmarks=10"])


def only(spelled):
    (dimension,) = read_space([spelled], BASE).dimensions
    return dimension


@pytest.mark.parametrize(
    ("spelled", "expected"),
    [
        ("stage1.batch_size=8,16,32", Choice("stage1.batch_size", (8, 16, 32))),
        ("stage1.learning_rate=1e-4,5e-4,1e-4", Choice("stage1.learning_rate", (1e-4, 5e-4))),
        ("keypoints.detector=sift,orb", Choice("keypoints.detector", ("sift", "orb"))),
        ("stage2.flip_at_test=true,false", Choice("stage2.flip_at_test", (True, False))),
        ("stage1.decay_at=[0.5, 0.9],[0.75]", Choice("stage1.decay_at", ("[0.5, 0.9]", "[0.75]"))),
        ("seed=3", Choice("seed", (3,))),
        ("stage1.learning_rate=loguniform:1e-4:2e-3", Interval("stage1.learning_rate", "loguniform", 1e-4, 2e-3)),
        ("augment.rotate=uniform:0:40", Interval("augment.rotate", "uniform", 0.0, 40.0)),
        ("method.clusters=randint:50:200", Interval("method.clusters", "randint", 50, 200)),
        ("method.clusters=lograndint:50:200", Interval("method.clusters", "lograndint", 50, 200)),
    ],
)
def test_every_kind_has_the_type_of_its_field_and_is_spelled_back(spelled, expected):
    found = only(spelled)
    assert found == expected
    assert only(f"{found.path}={found}") == found
    assert read_interval(found.path, str(found)) == (found if isinstance(found, Interval) else None)


def test_a_yaml_file_says_the_same(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text(
        "stage1.batch_size: [8, 16]\n"
        "stage1.learning_rate: loguniform:1e-4:2e-3\n"
        "method.clusters: {randint: [50, 200]}\n"
        "stage2.flip_at_test: true\n"
    )
    spelled = [
        "stage1.batch_size=8,16",
        "stage1.learning_rate=loguniform:1e-4:2e-3",
        "method.clusters=randint:50:200",
        "stage2.flip_at_test=true",
    ]
    assert read_space([str(path)], BASE) == read_space(spelled, BASE)
    assert read_space([str(path), "seed=0,1"], BASE).paths[-1] == "seed"


@pytest.mark.parametrize(
    ("over", "words"),
    [
        ([], "nothing to search"),
        (["stage1.batchsize=8"], "stage1.batchsize: unknown key; did you mean stage1.batch_size?"),
        (["stage1=8"], "stage1: is a section .* name one: stage1.KEY"),
        (["seed.x=8"], "seed is a value, not a section"),
        (["stage1.batch_size=8,big"], "stage1.batch_size = 'big': must be of type int"),
        (["stage1.batch_size=loguniform:8:64"], "is a whole number; take lograndint:LOW:HIGH"),
        (["stage1.batch_size=randint:8.5:64"], "stage1.batch_size = 8.5: must be of type int"),
        (["method.kind=uniform:0:1"], "method.kind is no number; give its values"),
        (["stage1.learning_rate=normal:0:1"], "no such distribution; known are uniform, loguniform"),
        (["stage1.learning_rate=uniform:1e-3"], "has 1 numbers; give two"),
        (["stage1.learning_rate=uniform:1e-3:1e-4"], "LOW must be less than HIGH"),
        (["stage1.learning_rate=loguniform:0:1"], "LOW must be positive"),
        (["stage1.learning_rate=uniform:a:b"], "stage1.learning_rate = 'a': must be of type float"),
        (["method.clusters=randint:50:50"], "LOW must be less than HIGH, which is not drawn itself"),
        (["method.clusters=randint:5:50"], "method.clusters = 5: must be at least method.landmarks = 10"),
        (["method.clusters=5"], "method.clusters = 5: must be at least method.landmarks = 10"),
        (["keypoints.detector=sift,surf"], "'surf': must be one of sift, orb"),
        (["stage1.batch_size=[8"], "not readable as a list"),
        (["stage1.batch_size="], "give values"),
        (["run=a,b"], "all trials share it"),
        (["dataset=a,b"], "all trials share it"),
        (["seed=0,1", "seed=2"], "comes twice"),
        (["colour"], "give PATH=A,B,C"),
        (["nowhere.yaml"], "nowhere.yaml: not readable"),
    ],
)
def test_what_cannot_be_searched_is_told_in_one_line(over, words):
    with pytest.raises(ConfigError, match=words) as error:
        read_space(over, BASE)
    assert len(str(error.value).splitlines()) == 1


def test_a_grid_is_all_combinations_in_order():
    space = read_space(["seed=0,1", "stage2.flip_at_test=true,false"], BASE)
    assert space.is_listed
    assert list(space.grid()) == [
        {"seed": 0, "stage2.flip_at_test": True}, {"seed": 0, "stage2.flip_at_test": False},
        {"seed": 1, "stage2.flip_at_test": True}, {"seed": 1, "stage2.flip_at_test": False},
    ]  # fmt: skip


def test_a_grid_of_a_distribution_is_an_error():
    space = read_space(["stage1.learning_rate=loguniform:1e-4:1e-2", "seed=0,1"], BASE)
    assert not space.is_listed
    with pytest.raises(ConfigError, match=r"--search grid: stage1.learning_rate is no list; take --search random"):
        space.grid()


def test_the_largest_whole_number_is_below_high():
    assert only("method.clusters=randint:50:200").largest == 199
    assert only("stage1.learning_rate=uniform:1e-4:1e-2").largest == 1e-2


def test_values_go_where_their_paths_say():
    made = configured(BASE, {"stage1.batch_size": 8, "seed": 7, "stage1.decay_at": "[0.5]"}, "elsewhere")
    assert (made.stage1.batch_size, made.seed, made.stage1.decay_at, made.run) == (8, 7, (0.5,), "elsewhere")
    changed = {path for path, value in made.flat().items() if value != BASE.flat()[path]}
    assert changed == {"stage1.batch_size", "seed", "stage1.decay_at", "run"}


@pytest.mark.parametrize(
    ("over", "message"),
    [
        (["stage1.learning_rate=loguniform:1e-4:100"], "--over stage1.learning_rate: 100: must be above 0 to 10"),
        (["augment.warp=uniform:0:0.5"], "--over augment.warp: 0.5: must be 0 to 0.08"),
        (["method.clusters=randint:1:50"], "--over method.clusters: 1: must be 2 to 32,767, or auto"),
        (["stage1.decay_at=[0.5],[2]"], r"--over stage1.decay_at: \[2\]: each number must be 0 to 1"),
        (["compute.threads=-1,2"], "--over compute.threads: -1: must be 0 to 4096"),
        (["augment.scale=[1.3, 0.7]"], "the first number must not be above the second"),
    ],
)
def test_values_out_of_the_range_of_their_field_are_refused_also_beside_other_paths(over, message):
    with pytest.raises(ConfigError, match=message):
        read_space([*over, "seed=0,1"], Config())


def test_the_ends_of_a_range_may_be_searched():
    over = ["augment.warp=uniform:0:0.08", "method.clusters=randint:30:32768", "method.landmarks=2,10000", "seed=0,1"]
    assert len(read_space(over, Config()).dimensions) == 4
