"""Reads the YAML files of the config for Hydra, and checks the words in each one."""

from __future__ import annotations

import functools
from pathlib import Path

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult

from lozo_bench.config.words import check_file

_check_once = functools.cache(check_file)  # the cells of a sweep read the same files again


class CheckedFiles(FileConfigSource):
    """Hydra's reader of config files, those in a user's own folders too.

    Only here can it be seen what was written: the config that Hydra composes has other types.
    """

    def load_config(self, config_path: str) -> ConfigResult:
        """Read a file.

        Raises:
            UserError: The file has a word that must be quoted.
        """
        result = super().load_config(config_path)
        path = Path(self.path) / self._normalize_file_name(config_path)
        _check_once(str(path), path.read_text(encoding="utf-8"), _package(config_path, result))
        return result


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
