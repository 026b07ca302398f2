"""A stand-in for `vllm serve`: its command line, log, HTTP interface, metrics and ends, without a model.

Faithful from outside only: what it imitates was seen on vLLM 0.32.0 on a CPU or stands in vLLM's source;
`compare` asks the real one and the stand-in the same questions. Answers are an echo.

    LAB_ENGINE_SPEED=100 python -m lab.engine /models/m --served-model-name m --port 8000
"""
