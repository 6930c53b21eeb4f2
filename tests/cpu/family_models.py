"""Names of the tiny random models of the families that can be trained; no torch, for the test that asks for each."""

NAMES = (
    "qwen3_untied",
    "qwen2_tied",
    "qwen2_untied",
    "llama_tied",
    "llama_untied_llama3",
    "llama_tied_linear",
    "mistral_untied",
)
