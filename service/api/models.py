"""GET /v1/models and /v1/models/{id}: the one model there is."""

from fastapi import APIRouter

from service.api.deps import ApiConfig, Config
from service.api.documentation import errors
from service.errors import NotFoundError
from service.protocol.model_list import ModelCard, ModelList

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.get("", summary="List the models", responses=errors(401))
async def list_models(config: Config) -> ModelList:
    return ModelList(data=(_card(config),))


@router.get("/{model_id:path}", summary="Look one model up", responses=errors(401, 404))
async def retrieve_model(model_id: str, config: Config) -> ModelCard:
    require_model(model_id, config)
    return _card(config)


def require_model(model_id: str, config: ApiConfig) -> None:
    """Raise NotFoundError unless it is the model served."""
    if model_id != config.model_name:
        raise NotFoundError(f"there is no such model; this server has {config.model_name}", "model")


def _card(config: ApiConfig) -> ModelCard:
    owner, slash, _ = config.model_name.partition("/")
    return ModelCard(id=config.model_name, created=config.created, owned_by=owner if slash else "minicpmv")
