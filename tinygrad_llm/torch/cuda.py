"""`torch.cuda`: there is no such device, and the functions that ask say so."""

from tinygrad_llm.torch.missing import lookup

__all__ = [
    "device_count",
    "empty_cache",
    "is_available",
    "is_bf16_supported",
    "manual_seed",
    "manual_seed_all",
    "synchronize",
]


def is_available() -> bool:
    """False."""
    return False


def is_bf16_supported() -> bool:
    """False."""
    return False


def device_count() -> int:
    """0."""
    return 0


def manual_seed(seed: int) -> None:
    """Nothing: without such a device it has no stream."""


manual_seed_all = manual_seed


def empty_cache() -> None:
    """Nothing: there is nothing to free."""


def synchronize(device: object = None) -> None:
    """Nothing: there is nothing to wait for."""


__getattr__ = lookup("torch.cuda", lambda: __all__)
