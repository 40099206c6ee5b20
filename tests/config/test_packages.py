"""An installed package adds options through the entry point group `dlx.conf`."""

import pytest

from dlx.config import compose
from dlx.config.errors import ConfigError, UserError
from dlx.config.groups import option_names, package_folders

MODEL = """# @package _global_
# A network of an installed package.
model:
  _target_: plugged.nets.Net
  width: 3
"""
NET = """from dlx.models.linear import Linear


class Net(Linear):
    def __init__(self, *, spec, width: int = 1) -> None:
        super().__init__(spec=spec)
"""


@pytest.fixture
def plugged(tmp_path, monkeypatch):
    """Installs the package; called with its entry point's value and an option's path in its folder."""

    def install(value="plugged.conf", option="model/net.yaml"):
        for path, text in {
            "plugged/__init__.py": "raise RuntimeError('the package is not imported to find its options')\n",
            f"plugged/conf/{option}": MODEL,
            "plugged-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: plugged\nVersion: 1.0\n",
            "plugged-1.0.dist-info/entry_points.txt": f"[dlx.conf]\nplugged = {value}\n",
        }.items():
            file = tmp_path / "site" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        monkeypatch.syspath_prepend(tmp_path / "site")
        package_folders.cache_clear()
        return tmp_path / "site" / "plugged"

    yield install
    monkeypatch.undo()
    package_folders.cache_clear()


def test_its_options_are_listed_and_composed(plugged):
    folder = plugged()
    (folder / "nets.py").write_text(NET)
    assert "net" in option_names("model")
    config = compose(["model=net", "model.width=5"], trust=["plugged"])
    assert config["model"] == {"_target_": "plugged.nets.Net", "width": 5}


def test_its_classes_need_trust(plugged):
    plugged()
    with pytest.raises(ConfigError, match="--trust PKG allows one of yours"):
        compose(["model=net"])


def test_the_name_of_a_shipped_option_is_refused(plugged):
    plugged(option="model/mlp.yaml")
    with pytest.raises(UserError, match=r"package plugged: model/mlp\.yaml has the name of a shipped option"):
        compose([])


def test_a_folder_that_does_not_exist_is_one_line(plugged):
    plugged(value="plugged.options")
    with pytest.raises(UserError, match=r"package plugged: entry point dlx\.conf names plugged\.options, which is no"):
        compose([])
