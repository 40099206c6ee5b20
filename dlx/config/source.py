"""Option files as Hydra sees them: read by dlx's own reader, from folders whose names need no quoting."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

from dlx.config.errors import UserError
from dlx.config.groups import GROUPS, package_of, shown
from dlx.config.yaml import read_text, read_yaml

SCHEME = "dlx"
_folders: ContextVar[Sequence[Path] | None] = ContextVar("folders", default=None)


class OptionFiles(ConfigSource):
    """A folder of groups, such as conf/."""

    @staticmethod
    def scheme() -> str:
        return SCHEME

    def load_config(self, config_path: str) -> ConfigResult:
        path = self._file(config_path)
        if not path.exists():
            raise ConfigLoadError(f"{path}: there is no such file")
        content = read_option(path, config_path.partition("/")[0])
        header = {"package": package_of(read_text(path))}
        return ConfigResult(self.provider, self.full_path(), OmegaConf.create(content), header)

    def available(self) -> bool:
        return self.is_group("")

    def is_group(self, config_path: str) -> bool:
        return Path(self.path, config_path).is_dir()

    def is_config(self, config_path: str) -> bool:
        return self._file(config_path).is_file()

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        found: list[str] = []
        for path in Path(self.path, config_path).iterdir():
            self._list_add_result(found, f"{config_path}/{path.name}", path.name, results_filter)
        return sorted(set(found))

    def _file(self, config_path: str) -> Path:
        return Path(self.path, self._normalize_file_name(config_path))


def read_option(path: Path, group: str) -> dict[str, Any]:
    """The content of an option file. Raises UserError if it is not a mapping, or sets other groups without the line
    `# @package _global_`: Hydra would put them into its own block."""
    content = read_yaml(path)
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"{shown(path)}: must be keys with values, got {content!r:.60}")
    others = [key for key in content if key in GROUPS]
    if group in GROUPS and others and "_target_" not in content and package_of(read_text(path)) is None:
        raise UserError(f"{shown(path)}: sets `{others[0]}:`, so it needs a first line `# @package _global_`")
    return content


class Folders(SearchPathPlugin):
    """Adds the folders of `searching` to Hydra's search path, in their order."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        if (folders := _folders.get()) is None:  # another program's Hydra, in the same process
            return
        for element in search_path.get_path():
            if element.provider == "main":
                element.path = f"{SCHEME}://{element.path}"
        for number, folder in enumerate(folders):
            search_path.append(f"dlx{number}", f"{SCHEME}://{folder}")


@contextmanager
def searching(folders: Sequence[Path]) -> Iterator[None]:
    """Inside, Hydra finds option files in these folders."""
    plugins = Plugins.instance()
    plugins.register(OptionFiles)
    plugins.register(Folders)
    before = _folders.set(folders)
    try:
        yield
    finally:
        _folders.reset(before)
