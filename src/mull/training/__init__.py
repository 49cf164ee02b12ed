"""Examples → weights: data, tokenizer, model, schedule, loop, and the policies trained with them.

Import what you need from the modules; this file stays free of torch.
"""

CHECKPOINT = "checkpoint.safetensors"
"""What a training's folder holds as long as it is not done."""
