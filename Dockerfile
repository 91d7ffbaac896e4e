# The suite as a Docker Space, or anywhere: docker build -t genkit . && docker run -p 7860:7860 genkit
FROM python:3.12-slim

# A processor-only image is 2 GB smaller with the processor-only torch: give the address of
# PyTorch's package index for it with --build-arg PIP_EXTRA_INDEX_URL=...
ARG PIP_EXTRA_INDEX_URL=""

RUN useradd --create-home --uid 1000 user
USER user
ENV HOME=/home/user \
    PATH=/home/user/.local/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    OMP_WAIT_POLICY=PASSIVE \
    GRADIO_ANALYTICS_ENABLED=False
WORKDIR /home/user/app

COPY --chown=user:user requirements.txt .
RUN PIP_EXTRA_INDEX_URL=$PIP_EXTRA_INDEX_URL pip install --user --no-cache-dir -r requirements.txt
COPY --chown=user:user . .

EXPOSE 7860
CMD ["python", "-m", "genkit", "app", "--listen", "--port", "7860"]
