"""Configuration: OpenPCDet's YAML files, ``--set``, and the check of the whole; the names are OpenPCDet's."""

from pcdet.config.check import require_sections, validate_config
from pcdet.config.files import find_config_file
from pcdet.config.load import cfg, cfg_from_yaml_file, log_config_to_file, merge_new_config
from pcdet.config.overrides import cfg_from_list
from pcdet.registry import ConfigError

__all__ = [
    "ConfigError",
    "cfg",
    "cfg_from_list",
    "cfg_from_yaml_file",
    "find_config_file",
    "log_config_to_file",
    "merge_new_config",
    "require_sections",
    "validate_config",
]
