"""Training on one small loop: `loop.train`, resumable and watched for divergence; `schedules` for the learning rate."""
