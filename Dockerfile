# docker build -t gearshift . && docker run --rm --gpus all -v $PWD/runs:/app/runs gearshift
FROM python:3.12-slim
WORKDIR /app
# A C compiler and Python's headers are here: triton compiles with them.
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
COPY . .
RUN pip install --no-cache-dir -e '.[data]'
ENTRYPOINT ["python", "-m", "launcher"]
