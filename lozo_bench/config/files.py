"""Reads the YAML files of the config for Hydra, and checks the words in each one."""

from __future__ import annotations

import functools
import pickle
from pathlib import Path

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult

from lozo_bench.config.words import check_file


class CheckedFiles(FileConfigSource):
    """Hydra's reader of config files, those in a user's own folders too.

    Only here can it be seen what was written: the config that Hydra composes has other types.
    """

    def load_config(self, config_path: str) -> ConfigResult:
        """Read a file.

        Raises:
            UserError: The file has a word that must be quoted.
        """
        path = Path(self.path) / self._normalize_file_name(config_path)
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        result: ConfigResult = pickle.loads(_read(self.provider, self.path, config_path, text))
        return result


# Hydra reads the same files again for every cell of a sweep; parsing takes fifty times as long as
# unpickling what was parsed, of which every caller needs its own copy.
@functools.cache
def _read(provider: str, folder: str, config_path: str, text: str) -> bytes:
    """Return the pickled result of reading a file with this text, which is checked."""
    source = FileConfigSource(provider, folder)
    result = source.load_config(config_path)
    path = Path(folder) / source._normalize_file_name(config_path)
    check_file(str(path), text, _package(config_path, result))
    return pickle.dumps(result)


def check_words_in_files() -> None:
    """Let Hydra read files with `CheckedFiles` from now on."""
    Plugins.instance()  # registers Hydra's own reader, which is replaced here
    SourcesRegistry.instance().types[CheckedFiles.scheme()] = CheckedFiles


def _package(config_path: str, result: ConfigResult) -> str:
    package = result.header.get("package")
    group = config_path.rpartition("/")[0].replace("/", ".")
    if package is None:
        return group
    return "" if package == "_global_" else package.replace("_group_", group)
