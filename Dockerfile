# docker build --build-arg ACCELERATOR=tpu|gpu -t bert-jax:tpu .
# docker run bert-jax:tpu pretrain base --data gs://… --run-dir gs://…
FROM python:3.12-slim
# The extra that brings the accelerator's own libraries: jax[tpu] brings libtpu, jax[cuda12] CUDA; the host has the driver alone.
ARG ACCELERATOR=tpu
WORKDIR /opt/bert_jax
COPY pyproject.toml setup.cfg README.md LICENSE ./
COPY bert_jax bert_jax
COPY input_pipeline input_pipeline
COPY launch launch
RUN pip install --no-cache-dir ".[input,${ACCELERATOR}]"
# Lines of the log come out when they are written, not when a buffer is full: a machine may be taken away any moment.
ENV PYTHONUNBUFFERED=1
# In this form signals reach bert-jax itself, without a shell between that would swallow the SIGTERM at which it saves.
ENTRYPOINT ["bert-jax"]
