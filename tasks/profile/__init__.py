"""profile: measure every layer of the base model, before `choose` plans its conversion."""
