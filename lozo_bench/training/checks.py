"""What can be found out about a config without importing torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lozo_bench.config.checks import bad_values, check_keys, check_prompts
from lozo_bench.config.explain import explain
from lozo_bench.config.plugins import allow
from lozo_bench.config.prompts import with_chosen_prompt
from lozo_bench.config.schema import Config
from lozo_bench.config.secrets import secret_in
from lozo_bench.config.several import in_task, of_task, task_configs
from lozo_bench.config.several_checks import check_kind
from lozo_bench.config.signature import errors_in_node
from lozo_bench.errors import UserError, raise_all
from lozo_bench.models.locate import locate_adapter, model_kind
from lozo_bench.runs.untold import flat

# What every optimizer's constructor takes besides its options: the engine and the draws.
_GIVEN_TO_OPTIMIZERS = 2


def checked(raw: DictConfig) -> tuple[Config, dict[str, Any]]:
    """Return the config as dataclasses, and resolved to plain values, if nothing is wrong with it.

    Raises:
        UserError: a value is missing, unknown, of the wrong type or out of range, or it contains a
            secret. Everything that is wrong is listed, one line for each.
    """
    config, plain = typed(raw)
    refuse_secrets(plain)
    check_config(config)
    return config, plain


def typed(raw: DictConfig) -> tuple[Config, dict[str, Any]]:
    """Return the config as dataclasses, and resolved to plain values.

    Of the dataclasses, ``task.prompt`` is the prompt that ``task.prompts`` chooses. From now on,
    classes of the config's ``plugins`` are allowed.

    Raises:
        UserError: a value is missing, a key unknown, or an interpolation cannot be resolved.
    """
    try:
        config = OmegaConf.to_object(raw)
        plain = OmegaConf.to_container(raw, resolve=True, enum_to_str=True)
    except OmegaConfBaseException as error:
        raise UserError(explain(error, []) or str(error)) from error
    assert isinstance(config, Config)
    assert isinstance(plain, dict)
    by_name = {str(key): value for key, value in plain.items()}
    check_keys(by_name)
    config.task = with_chosen_prompt(config.task)
    allow(config.plugins)
    return config, by_name


def refuse_secrets(plain: Mapping[str, Any]) -> None:
    """Refuse a config with an access token in it: configs are written to files.

    Raises:
        UserError: names the keys, not the token.
    """
    if (secret := secret_in(dict(flat(plain)))) is not None:
        raise UserError(secret)


def check_config(config: Config) -> None:
    """Check the values, the prompts, and the options of optimizer, tuning, allocation and source.

    Raises:
        UserError: lists everything that is wrong.
    """
    raise_all(_errors(config))


def _errors(config: Config) -> Iterator[UserError]:
    yield from bad_values(config)
    if config.optimizer:
        yield from errors_in_node(config.optimizer, "optimizer", _GIVEN_TO_OPTIMIZERS)
    of_source = [
        of_task(name, error)
        for name, one in task_configs(config).items()
        if one.task.source
        for error in errors_in_node(one.task.source, "task.source")
    ]
    yield from of_source
    yield from errors_in_node(config.tuning, "tuning")
    if config.allocation:
        yield from errors_in_node(config.allocation, "allocation")
        if proxy := config.allocation.get("proxy"):
            yield from errors_in_node(proxy, "allocation.proxy")
    if not config.task.source and not config.task.tasks:
        yield UserError(
            "task.source: missing; what to do: choose a task, or several as task=[rte,sst2]"
        )
        return
    if of_source:
        return  # the checks of prompts read the labels and fields of the source
    try:
        locate_adapter(config.model)
        if (kind := model_kind(config.model)) is not None:
            check_kind(config, kind)
            for name, one in task_configs(config).items():
                with in_task(name):
                    check_prompts(one, kind)
    except UserError as error:
        yield error
