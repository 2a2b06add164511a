"""Composes configs as Hydra does, and remembers what many of them have in common.

Hydra reads and merges about thirty files for each config. The cells of a sweep differ in few of
them, so most of that work is the same for every cell.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any, NamedTuple

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository, IConfigRepository
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.default_element import ResultDefault
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException

from lozo_bench.config.less_work import choices_listed_where_used


class _File(NamedTuple):
    """What decides what a file adds to a config; ``primary`` is config.yaml."""

    path: str | None
    package: str | None
    primary: bool


class _Begun(NamedTuple):
    """The first so many files of a config, merged and pickled."""

    files: int
    config: bytes


_NOTHING = _Begun(0, pickle.dumps(OmegaConf.create()))


class RememberingLoader(ConfigLoaderImpl):
    """Hydra's loader of configs, for a command that composes many.

    A file is read once, and so counts as it was when it was first read. The files that a config
    begins with are not merged again if the last config began with the same ones: loops that are
    nested, as those of a sweep, share most of them. All else is done by Hydra.
    """

    def __init__(self, config_search_path: ConfigSearchPath) -> None:
        super().__init__(config_search_path)
        self._parsed: dict[str, Override] = {}
        self._repositories: dict[tuple[str | None, str | None], _Remembered] = {}

    def load_configuration(self, *args: Any, **kwargs: Any) -> DictConfig:
        """Compose a config: see Hydra's `ConfigLoader`."""
        with choices_listed_where_used():
            return super().load_configuration(*args, **kwargs)

    def parse(self, overrides: Sequence[str]) -> list[Override]:
        """Parse overrides as Hydra does, each text once."""
        new = [text for text in overrides if text not in self._parsed]
        self._parsed |= zip(new, OverridesParser.create().parse_overrides(new), strict=True)
        return [self._parsed[text] for text in overrides]

    def _parse_overrides_and_create_caching_repo(
        self, config_name: str | None, overrides: list[str]
    ) -> tuple[list[Override], CachingConfigRepository]:
        parsed = self.parse(overrides)
        # These change where files are searched for.
        paths = (one for one in parsed if one.get_key_element() == "hydra.searchpath")
        key = config_name, getattr(next(paths, None), "input_line", None)
        if key not in self._repositories:
            repository = _Remembered(self.repository)
            self._process_config_searchpath(config_name, parsed, repository)
            self._repositories[key] = repository
        return parsed, self._repositories[key]

    def _compose_config_from_defaults_list(
        self, defaults: list[ResultDefault], repo: IConfigRepository
    ) -> DictConfig:
        if not isinstance(repo, _Remembered):  # another version of Hydra makes it elsewhere
            return super()._compose_config_from_defaults_list(defaults, repo)
        try:
            config = self._merged(defaults, repo)
        except OmegaConfBaseException:  # Hydra says in which file the mistake is
            again = CachingConfigRepository(repo.delegate)
            return super()._compose_config_from_defaults_list(defaults, again)
        _strip_defaults(config)
        return config

    def _merged(self, defaults: list[ResultDefault], repo: _Remembered) -> DictConfig:
        files = [_File(one.config_path, one.package, one.primary) for one in defaults]
        contents = [
            self._content(one, file, repo) for one, file in zip(defaults, files, strict=True)
        ]
        common = _common(files, repo.last)
        repo.begun = [one for one in repo.begun if one.files <= common]
        begun = repo.begun[-1] if repo.begun else _NOTHING
        config: DictConfig = pickle.loads(begun.config)
        if begun.files < common:
            _merge(config, contents[begun.files : common])
            repo.begun.append(_Begun(common, pickle.dumps(config)))
        _merge(config, contents[common:])
        repo.last = files
        return config

    def _content(self, default: ResultDefault, file: _File, repo: _Remembered) -> bytes:
        if file not in repo.contents:
            repo.contents[file] = pickle.dumps(self._load_single_config(default, repo).config)
        return repo.contents[file]


class _Remembered(CachingConfigRepository):
    """Hydra's files, those read so far, and what the last config was merged from.

    Args:
        delegate: reads the files.

    Attributes:
        contents: what each file adds to a config, pickled.
        last: the files of the last config, in their order.
        begun: the beginnings of that config which others had, too, the shortest first.
    """

    def __init__(self, delegate: IConfigRepository) -> None:
        super().__init__(delegate)
        self.contents: dict[_File, bytes] = {}
        self.last: list[_File] = []
        self.begun: list[_Begun] = []


def _common(one: Sequence[_File], other: Sequence[_File]) -> int:
    """Return how many files two configs have in common before the first different one."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


def _merge(config: DictConfig, contents: Sequence[bytes]) -> None:
    """Merge files into a config. They are copies, which may become parts of it."""
    with flag_override(config, "no_deepcopy_set_nodes", True):
        config.merge_with(*map(pickle.loads, contents))


def _strip_defaults(config: Any) -> None:
    """Remove the lists of defaults that schemas have, as Hydra does once all is merged."""
    if not isinstance(config, DictConfig) or config._is_missing() or config._is_none():
        return
    if config._get_flag("HYDRA_REMOVE_TOP_LEVEL_DEFAULTS"):
        with flag_override(config, ["readonly", "struct"], False):
            config._set_flag("HYDRA_REMOVE_TOP_LEVEL_DEFAULTS", None)
            config.pop("defaults", None)
    for _, value in config.items_ex(resolve=False):
        _strip_defaults(value)
