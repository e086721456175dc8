# The images of docker-compose.yaml. They hold environments only, installed from requirements/*.lock with hashes
# checked; the code is mounted, so that an edit is seen without building anew.
# Bookworm, not the newest Debian: it is the last one with the Java 17 that EMR runs.
FROM python:3.11-slim-bookworm AS base
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
ENV LANG=C.UTF-8 PYTHONUNBUFFERED=1 PYTHONPATH=/opt/fruits:/opt/fruits/plugins
# Group 0 owns what is written, so that any user id works (compose runs as the developer's own).
RUN useradd --uid 50000 --gid 0 --create-home fruits \
    && mkdir -p /opt/fruits /var/lib/fruits && chown fruits:root /var/lib/fruits && chmod 775 /var/lib/fruits /home/fruits
ENV HOME=/home/fruits
WORKDIR /opt/fruits


FROM base AS uv
COPY requirements/uv.lock /locks/uv.lock
RUN pip install --no-cache-dir --require-hashes --target /opt/uv --requirement /locks/uv.lock


# Every Airflow service, and the one-shot services that migrate the database and fill the AWS emulator.
FROM base AS airflow
COPY compose/install.sh compose/packages/airflow.in requirements/airflow.lock /locks/
RUN --mount=type=cache,target=/var/cache/uv --mount=type=bind,from=uv,source=/opt/uv,target=/opt/uv \
    /locks/install.sh /opt/airflow /locks/airflow.in /locks/airflow.lock
ENV PATH=/opt/airflow/bin:$PATH AIRFLOW_HOME=/var/lib/fruits/airflow
# Folders that named volumes take their owner and mode from.
RUN install -d -o fruits -g root -m 775 /var/lib/fruits/airflow /var/lib/fruits/logs /var/lib/fruits/deployment
COPY --chmod=755 compose/entrypoint.sh /usr/local/bin/fruits-entrypoint
COPY --chmod=755 compose/healthy.py /usr/local/bin/fruits-healthy
USER 50000:0
ENTRYPOINT ["fruits-entrypoint"]


# The Python of the cluster, which the AWS emulator executes steps with.
FROM base AS spark
COPY compose/install.sh compose/packages/spark.in requirements/spark.lock /locks/
RUN --mount=type=cache,target=/var/cache/uv --mount=type=bind,from=uv,source=/opt/uv,target=/opt/uv \
    /locks/install.sh /opt/spark /locks/spark.in /locks/spark.lock


# Converts the weights once (make_model.py), then ends: the only image with TensorFlow.
FROM spark AS model
COPY compose/packages/model.in /locks/
RUN --mount=type=cache,target=/var/cache/uv --mount=type=bind,from=uv,source=/opt/uv,target=/opt/uv \
    UV_COMPILE_BYTECODE=0 /locks/install.sh /opt/spark /locks/model.in /locks/spark.lock
ENV PATH=/opt/spark/bin:$PATH PYTHONPATH=/opt/fruits/spark_jobs
RUN install -d -o fruits -g root -m 775 /var/lib/fruits/models
USER 50000:0


# The AWS emulator: its endpoint, and the Spark that executes its steps.
FROM spark AS aws
# The newest security fixes of Java 17 rather than a version that the mirror drops one day.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends openjdk-17-jre-headless procps \
    && rm -rf /var/lib/apt/lists/*
COPY dev/environment.py dev/environment.mk dev/fetch_jars.py /locks/dev/
RUN PYTHONPATH=/locks /opt/spark/bin/python -m dev.fetch_jars --folder /opt/jars
COPY dev/class_archive.py dev/typical_job.py /locks/dev/
RUN PYTHONPATH=/locks /opt/spark/bin/python -m dev.class_archive --folder /opt/jars && chmod -R a+rX /opt/jars
COPY compose/packages/aws.in requirements/airflow.lock /locks/
RUN --mount=type=cache,target=/var/cache/uv --mount=type=bind,from=uv,source=/opt/uv,target=/opt/uv \
    /locks/install.sh /opt/aws /locks/aws.in /locks/airflow.lock
ENV PATH=/opt/aws/bin:$PATH
RUN install -d -o fruits -g root -m 775 /var/lib/fruits/aws
COPY --chmod=755 compose/healthy.py /usr/local/bin/fruits-healthy
USER 50000:0
ENTRYPOINT ["python", "-m", "local_aws", "--state-dir", "/var/lib/fruits/aws", \
    "--spark-python", "/opt/spark/bin/python", "--jars-dir", "/opt/jars"]
