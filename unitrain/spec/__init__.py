"""What a model and a recipe are: pydantic only, no arrays."""
