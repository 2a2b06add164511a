"""What nearly every run of a test reads and imports late; the fork server of `cells` has it all."""

import gc

import transformers.models.opt.modeling_opt
import transformers.models.roberta.modeling_roberta  # noqa: F401
from cells import composed

composed("tracking=files")
gc.freeze()
