"""`python -m service.openapi` writes openapi.yaml to stdout; needs PyYAML (extra: dev), and no model."""

import sys

import yaml

from service.api.application import create_api
from service.api.deps import ApiConfig
from service.generation.availability import Availability


def openapi_yaml() -> str:
    """The API as YAML, the same whatever the settings."""
    config = ApiConfig(model_name="openbmb/MiniCPM-V-2", created=0, system_fingerprint="")
    document = create_api(config, Availability()).openapi()
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=110)


if __name__ == "__main__":
    sys.stdout.write(openapi_yaml())
