# Neuropil's server, as `make serve` starts it.
#
#   docker build -t neuropil .
#   docker run -p 127.0.0.1:8000:8000 -v /data/my-study:/studies -v neuropil-model:/app/model neuropil
#   docker run --gpus all ...                                  the same image on a GPU
#
# The index decides which torch there is: PyPI gives the CUDA build, which needs nothing but the
# driver on the host. For an image without CUDA (6 GB smaller) name an index of CPU builds:
#   docker build -t neuropil:cpu --build-arg TORCH_INDEX=ADDRESS .
#
# In the container the server answers everybody who reaches its port: publish it on 127.0.0.1, or
# behind a proxy with a login (docs/viewers.md, "Serving a lab safely").

FROM python:3.11-slim-bookworm

ARG TORCH_INDEX=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

WORKDIR /app
COPY requirements/ requirements/
RUN python -m venv .venv \
    && if [ -n "$TORCH_INDEX" ]; then \
        .venv/bin/python -m pip install --quiet --no-deps --index-url "$TORCH_INDEX" \
            "$(sed -n 's/^\(torch==[0-9.]*\).*/\1/p' requirements/locked.txt)"; \
    fi \
    && sh requirements/install.sh .venv/bin/python requirements/locked.txt

COPY main.py LICENSE README.md ./
COPY lib/ lib/
COPY model/ model/

# The user may write what the server writes (MONAI Label makes bin/), and nothing else of the app.
RUN useradd --create-home --uid 1000 neuropil \
    && install -d -o neuropil -g neuropil /studies logs bin \
    && chown -R neuropil:neuropil model
USER 1000

ENV VENV=.venv HOST=0.0.0.0 PORT=8000 STUDIES=/studies \
    OMP_WAIT_POLICY=PASSIVE PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
VOLUME ["/studies", "/app/model"]
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=10s --start-period=180s \
    CMD [".venv/bin/python", "requirements/healthy.py"]

# Arguments of `docker run` are pairs for --conf: training.max_epochs 10
ENTRYPOINT ["sh", "requirements/serve.sh"]
