# isl_jax from its wheel; the checkout does not travel.
#
#     docker build -t isl-jax .                          # CPU
#     docker build -t isl-jax --build-arg EXTRA='[cuda13]' .   # NVIDIA GPUs; or [cuda12]
#     docker run --rm -v "$PWD:/data" -w /data isl-jax isl-predict --model=W1 --input=RAW --out=LABELS
#     docker run --rm --gpus all …                       # with a GPU
#
# Not built where this was written, which has no Docker.
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS wheel
WORKDIR /src
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:${PYTHON}-slim
ARG EXTRA=""
COPY --from=wheel /wheels /wheels
RUN pip install --no-cache-dir "$(ls /wheels/*.whl)${EXTRA}" && rm -r /wheels
# What is compiled (numba) and fetched (weights) is kept where the user may write.
ENV NUMBA_CACHE_DIR=/tmp/numba XDG_CACHE_HOME=/tmp/cache MPLCONFIGDIR=/tmp/matplotlib
CMD ["isl-predict", "--help"]
