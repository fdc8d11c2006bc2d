"""What `auto` is in the number format, memory format and compilation of networks, once for each run (`Run.resolved`)."""

from __future__ import annotations

from dataclasses import replace

from ray_kplm.config import ComputeConfig

AUTO_KEYS = ("precision", "channels_last", "compile")
"""The keys of `compute` whose `auto` depends on the machine."""
UNRECORDED = {"compile": "no"}
"""What keys are in runs that were begun before there was the key."""


def resolve_auto(compute: ComputeConfig, *, gpu: bool) -> ComputeConfig:
    """Replace `auto` in `compute`.

    It becomes bf16 on GPUs and on CPUs with bf16 instructions, channels_last on GPUs, and compilation on GPUs.

    Seconds of a training step of 8 images at 128 px on one core in fp32 / bf16 / bf16 with channels_last: with AMX at width 64
    0.135 / 0.101 / 0.151, at width 128 - / 0.205 / 0.199; with AVX-512 bf16 alone at width 64 0.182 / 0.150 / 0.202. Group norm
    makes channels_last slow on CPUs. Compilation gains nothing there, and takes a minute.

    Args:
        compute: the section.
        gpu: whether the networks run on GPUs.
    """
    precision, channels_last = compute.precision, compute.channels_last
    if precision == "auto":
        precision = "bf16" if gpu or _multiplies_bf16() else "fp32"
    if channels_last == "auto":
        channels_last = "yes" if gpu else "no"
    compiled = ("yes" if gpu else "no") if compute.compile == "auto" else compute.compile
    return replace(compute, precision=precision, channels_last=channels_last, compile=compiled)


def _multiplies_bf16() -> bool:
    """Return whether this CPU multiplies bf16 in hardware: by matrix units (AMX) or vector units (AVX-512)."""
    return not {"amx_bf16", "avx512_bf16"}.isdisjoint(_cpu_flags())


def _cpu_flags() -> list[str]:
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="ignore") as lines:
            return next((line for line in lines if line.startswith("flags")), "").split()
    except OSError:
        return []
