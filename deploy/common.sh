# Shared by the scripts beside it. They work on the services of compose.yml; with DATABASE_URL set, on servers that are
# reached directly, with the application's other variables beside it and PYTHON as the interpreter.
# shellcheck shell=bash
set -euo pipefail
umask 077
deploy=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

compose() { (cd "$deploy" && docker compose "$@"); } # where .env and the files it names are
runs_in_compose() { [ -z "${DATABASE_URL:-}" ]; }
say() { echo "$(date -u +%H:%M:%S) $*"; }
fail() { echo "$*" >&2; exit 1; }

# postgres PROGRAM ARGUMENTS...: a PostgreSQL client program on our database.
postgres() {
    if runs_in_compose; then
        compose exec -T postgres "$@" --username captioner --dbname captioner
    else
        "$@" --dbname "$DATABASE_URL"
    fi
}

# image_name: the application's. Compose names those of the services it depends on as well.
image_name() {
    compose config --images setup | grep --invert-match --line-regexp --fixed-strings "$(compose config --images postgres)"
}

# servers_start: what the application's containers need, up and answering.
servers_start() {
    # shellcheck disable=SC2046  # one word per service
    compose up --detach --wait postgres redis $(compose config --services | grep --line-regexp minio)
}

# prepare: the schema of this release, the bucket, and what else has to be there before anything is started.
prepare() {
    if runs_in_compose; then
        compose run --rm setup
    else
        "${PYTHON:-python}" "$deploy/../manage.py" setup
    fi
}

# objects DIRECTION FOLDER: photos and weights between the store and a folder of this machine.
objects() {
    if runs_in_compose; then
        compose run --rm --no-deps -T --user "$(id -u):$(id -g)" --env CAPTIONER_DATA_DIR=/tmp/captioner \
            --volume "$2:/backup" setup python manage.py objects "$1" /backup
    else
        "${PYTHON:-python}" "$deploy/../manage.py" objects "$1" "$2"
    fi
}

# sql_of_dump FILE [OPTION]: the statements that make the dumped database again.
sql_of_dump() {
    if runs_in_compose; then
        compose exec -T postgres pg_restore --no-owner --file=- "${@:2}" <"$1"
    else
        pg_restore --no-owner --file=- "${@:2}" "$1"
    fi
}

# rows_of_dump FILE: the table and the number of its rows, line by line. Fails where the dump ends too early.
rows_of_dump() {
    sql_of_dump "$1" --data-only | awk '/^COPY /{table = $2; rows = 0; inside = 1; next}
        inside && /^\\\.$/{print table, rows; inside = 0}
        inside{rows++}' | LC_ALL=C sort
}
