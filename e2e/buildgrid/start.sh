# Starts PostgreSQL and BuildGrid in the folder /client, which keeps what they had.
set -eu
cd /client
bin=$(echo /usr/lib/postgresql/*/bin)
if [ ! -d database ]; then
  "$bin/initdb" --pgdata=unfinished --auth=trust --username=buildgrid --encoding=UTF8 --locale=C --no-sync
  mv unfinished database
fi
# The process of that number is another one in this namespace.
rm -f database/postmaster.pid
"$bin/postgres" -D database -k /client -c listen_addresses= -c fsync=off &
until "$bin/pg_isready" --quiet --host=/client --username=buildgrid; do sleep 0.1; done
run='from buildgrid.server.app import cli; cli()'
python3 -c "$run" migrate apply 'postgresql+psycopg://buildgrid@/postgres?host=/client'
exec python3 -c "$run" server start --verbose server.yml
