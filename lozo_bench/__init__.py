"""Fine-tune language models without full backpropagation: LOZO, MeZO and their relatives."""

__version__ = "0.1.0"
