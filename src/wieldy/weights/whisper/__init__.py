"""Whisper from CTranslate2 to transformers and back: the same numbers, so that both engines hear the same words.

Use it when an option needs what only transformers gives (token scores, fine-tuning, compression) and the model at hand
is a CTranslate2 one, or to run a fine-tuned model at CTranslate2's speed. Weights keep their type (float32, float16 or
bfloat16); quantised ones are refused, because what was rounded away cannot be brought back.

`as_transformers` and `as_ctranslate2` convert once into the cache, `to_transformers` and `to_ctranslate2` into a
folder of the caller's.
"""

from wieldy.weights.whisper.cached import as_ctranslate2, as_transformers
from wieldy.weights.whisper.conversion import to_ctranslate2, to_transformers

__all__ = ["as_ctranslate2", "as_transformers", "to_ctranslate2", "to_transformers"]
