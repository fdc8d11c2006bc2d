"""`kplm bench extraction` at a size of seconds."""

from ray_kplm.bench.extraction import Sizes, bench, lines
from ray_kplm.config import load_config
from ray_kplm.progress import ignore_progress

CONFIG = load_config(
    None,
    ["network.image_size=64", "network.width=16", "network.depth=2", "network.groups=4", "network.descriptor_dim=32",
     "method.landmarks=5", "method.clusters=8", "clustering.n_init=2", "clustering.iterations=5", "compute.batch_images=16",
     "compute.threads=1"],
)  # fmt: skip


def test_the_bench_measures_stages_and_features():
    found = bench(CONFIG, Sizes(images=300, computed=20, features=3000), ignore_progress)
    assert 0 < found["overlap"] <= 1.2
    assert found["images_per_s"] > 0
    assert 1 <= found["reads_per_feature_byte"] < found["reads_per_feature_byte_without_memory"]
    assert found["read_mb_s"] > 0
    assert any("Parquet" in line for line in lines(found))
