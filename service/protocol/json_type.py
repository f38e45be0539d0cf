"""Which branch of a union a JSON value belongs to, by its JSON type alone; knows no field."""

# Tags name the branch of a union in pydantic's error locations; the brackets tell them from field names.
TEXT, OBJECT, LIST = "<text>", "<object>", "<list>"


def json_type_tag(value: object) -> str | None:
    """The tag of a string, an object or a list; None for anything else."""
    if isinstance(value, str):
        return TEXT
    return LIST if isinstance(value, list | tuple) else OBJECT if isinstance(value, dict) else None
