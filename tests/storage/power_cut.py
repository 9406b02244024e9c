"""A disk that forgets at a power cut what was not synced: an oracle for files that are renamed once complete."""

import os
import stat
from pathlib import Path


class PowerCut:
    """Notes syncs and renames; `check` says which renames could leave an empty file, or be undone, after a power cut.

    A file counts as synced if it was not written to since (its size and time are those of the sync).
    """

    def __init__(self, monkeypatch):
        self.synced, self.renamed, self.wrong = {}, [], []
        for name in ("fsync", "replace", "rename"):
            monkeypatch.setattr(os, name, getattr(self, name)(getattr(os, name)))

    @staticmethod
    def state(status):
        return (status.st_ino, None if stat.S_ISDIR(status.st_mode) else (status.st_size, status.st_mtime_ns))

    def fsync(self, real):
        def fsync(descriptor):
            real(descriptor)
            number, content = self.state(os.fstat(descriptor))
            self.synced[number] = content
            self.renamed = [target for target in self.renamed if target.parent.stat().st_ino != number]

        return fsync

    def replace(self, real):
        def replace(source, target):
            inside = [Path(source), *Path(source).rglob("*")]
            for path in inside:
                number, content = self.state(path.stat())
                if number not in self.synced or self.synced[number] != content:
                    self.wrong.append(f"{path} is renamed before it is synced")
            real(source, target)
            self.renamed.append(Path(target))

        return replace

    rename = replace

    def check(self):
        assert not self.wrong
        assert not self.renamed, "their folder is not synced after the rename"
