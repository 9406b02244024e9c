"""`torch.backends`: kinds of devices and libraries, none of which is here."""

from tinygrad_llm.torch.missing import lookup

__all__ = ["cuda", "cudnn", "mkl", "mps"]


class _Backend:
    """A backend that is not there; settings such as `deterministic` may be set, and change nothing."""

    deterministic = False
    benchmark = False

    @staticmethod
    def is_available() -> bool:
        return False

    @staticmethod
    def is_built() -> bool:
        return False


mps, cuda, cudnn, mkl = _Backend(), _Backend(), _Backend(), _Backend()

__getattr__ = lookup("torch.backends", lambda: __all__)
