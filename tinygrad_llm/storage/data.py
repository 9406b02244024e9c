"""The folder of the files that ship with the package."""

from pathlib import Path


def data_folder() -> Path:
    """`data/` inside the package once it is installed; next to the package in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "data"
    return inside if inside.is_dir() else package.parent / "data"
