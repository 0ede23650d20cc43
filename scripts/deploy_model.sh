#!/bin/sh
# Deploys a model that a training job made: pushed, validated, rolled out step by step on evidence, and waited for. What cron or a CI job calls.
# scripts/deploy_model.sh --help says how; docs/model-deployment-guide.md has every phase and exit code.
set -u

USAGE=64
UNAVAILABLE=69
TEMPFAIL=75

usage() {
    cat <<'END'
Usage: deploy_model.sh --route ROUTE --model MODEL [--dry-run] [OPTION...] FILE

Deploys FILE with `switchback deploy --wait`: pushes it, validates it, rolls it out step by step, and waits until it is live.
One deployment at a time for each route on this machine; each line of the log has its time. It may be killed and called again.

  --route ROUTE   the route whose users get it
  --model MODEL   the model's name in the registry
  --dry-run       only say what would be done
  OPTION          any other option of `switchback deploy`, as --option=value: --steps=1,5,25, --judged=FILE, --why=TEXT, --if-busy=queue

Environment:
  SWITCHBACK             the program                                   [switchback, on the PATH]
  SWITCHBACK_CONFIG      a router's config: registry, admin address, what the route asks of its models
  SWITCHBACK_ADMIN       the router's admin address                    [that of the config, or http://127.0.0.1:9090]
  SWITCHBACK_TOKEN_FILE  a file with an operator's token               [that of the config's data folder]
  SWITCHBACK_REGISTRY    file:///FOLDER or s3://BUCKET/PREFIX          [that of the config]
  SWITCHBACK_SIGN_KEY    a private key of Ed25519 that signs the version
  SWITCHBACK_WHO         who deploys, for the registry                 [$USER]
  DEPLOY_TIMEOUT         how long to wait, like 90m or 6h; the rollout goes on all the same   [12h]
  DEPLOY_LOG             a file that the log is appended to, too
  DEPLOY_LOCK_DIR        where the locks are                           [/tmp]

Exit codes: 0 live, 2 refused or rolled back, 64 bad usage or config, 69 something needed is not there, 75 still under way when the time was
up, or another deployment of this script is, 130 interrupted.

cron, every night at four:
  0 4 * * *  SWITCHBACK_CONFIG=/etc/switchback/switchback.toml DEPLOY_LOG=/var/log/deploy_model.log /opt/switchback/scripts/deploy_model.sh --route search --model search /srv/models/tonight.onnx

GitHub Actions, on a runner that reaches the router:
  - name: deploy
    env:
      SWITCHBACK_CONFIG: /etc/switchback/switchback.toml
      DEPLOY_TIMEOUT: 5h
    run: scripts/deploy_model.sh --route search --model search --code-revision="$GITHUB_SHA" out/ranker.onnx

GitLab:
  deploy:
    variables: { SWITCHBACK_CONFIG: /etc/switchback/switchback.toml, DEPLOY_TIMEOUT: 5h }
    script: scripts/deploy_model.sh --route search --model search --code-revision="$CI_COMMIT_SHA" out/ranker.onnx
END
}

# Who reads the log may go; the deployment goes on, and its exit code is told.
trap '' PIPE

# A line with its time, to stderr and to the log.
say() {
    line="$(date -u +%Y-%m-%dT%H:%M:%SZ) deploy_model: $*"
    printf '%s\n' "$line" >&2 2>/dev/null || :
    if [ -n "${DEPLOY_LOG:-}" ]; then printf '%s\n' "$line" >>"$DEPLOY_LOG"; fi
}

fail() {
    code=$1
    shift
    say "$*"
    exit "$code"
}

log_lines() {
    while IFS= read -r line || [ -n "$line" ]; do say "$line"; done
}

ROUTE='' MODEL='' FILE='' DRY_RUN=''
# What is passed on is what stays of the arguments: each is taken from the front and put at the end.
left=$#
while [ "$left" -gt 0 ]; do
    argument=$1
    shift
    left=$((left - 1))
    case $argument in
        --help | -h)
            usage
            exit 0
            ;;
        --route | --model)
            [ "$left" -gt 0 ] || fail $USAGE "$argument needs a value; --help says how"
            if [ "$argument" = --route ]; then ROUTE=$1; else MODEL=$1; fi
            shift
            left=$((left - 1))
            ;;
        --route=*) ROUTE=${argument#*=} ;;
        --model=*) MODEL=${argument#*=} ;;
        --dry-run) DRY_RUN=--dry-run ;;
        --file | --file=* | --version | --version=* | --wait | --json | --timeout | --timeout=*)
            fail $USAGE "$argument: the file is the last argument, it is always waited for, and DEPLOY_TIMEOUT says how long; --help says how"
            ;;
        --*=* | --signature-change) set -- "$@" "$argument" ;;
        -*) fail $USAGE "$argument: an option that is passed on must be like --option=value; --help says how" ;;
        *)
            [ -z "$FILE" ] || fail $USAGE "one file at a time: $FILE, and $argument"
            FILE=$argument
            ;;
    esac
done

[ -n "$ROUTE" ] || fail $USAGE "--route is missing; --help says how"
[ -n "$MODEL" ] || fail $USAGE "--model is missing; --help says how"
[ -n "$FILE" ] || fail $USAGE "the model's file is missing; --help says how"
case $ROUTE in
    *[!A-Za-z0-9_-]*) fail $USAGE "--route $ROUTE: must be letters, digits, - and _" ;;
esac
if [ ! -f "$FILE" ] || [ ! -r "$FILE" ]; then fail $USAGE "$FILE: there is no such file, or it cannot be read"; fi
[ -s "$FILE" ] || fail $USAGE "$FILE: it is empty"
SWITCHBACK=${SWITCHBACK:-switchback}
command -v "$SWITCHBACK" >/dev/null 2>&1 || fail $UNAVAILABLE "$SWITCHBACK: there is no such program; install it, or name it with SWITCHBACK"
command -v flock >/dev/null 2>&1 || fail $UNAVAILABLE "flock is missing: install util-linux"
if ! (: >>"${DEPLOY_LOG:-/dev/null}") 2>/dev/null; then
    wrong=$DEPLOY_LOG DEPLOY_LOG=''
    fail $USAGE "DEPLOY_LOG=$wrong: it cannot be written"
fi

# One deployment at a time for each route. The system gives the lock back when this process and its child have ended, however they did.
LOCK=${DEPLOY_LOCK_DIR:-/tmp}/switchback-deploy-$ROUTE.lock
(: >>"$LOCK") 2>/dev/null || fail $UNAVAILABLE "$LOCK: it cannot be written; DEPLOY_LOCK_DIR says where else"
exec 9>>"$LOCK"
flock -n 9 || fail $TEMPFAIL "another deployment to $ROUTE is under way ($LOCK)"

PIPES=$(mktemp -d) || fail $UNAVAILABLE "no temporary folder can be made"
trap 'rm -rf "$PIPES"' EXIT
mkfifo "$PIPES/log" || fail $UNAVAILABLE "$PIPES/log: no pipe can be made"

say "deploying $FILE as $MODEL to $ROUTE"
log_lines <"$PIPES/log" 9>&- &
logger=$!
"$SWITCHBACK" deploy --route "$ROUTE" --model "$MODEL" --file "$FILE" --wait --timeout "${DEPLOY_TIMEOUT:-12h}" \
    ${DRY_RUN:+"$DRY_RUN"} "$@" >"$PIPES/log" 2>&1 &
child=$!
# It says itself what goes on without it.
trap 'kill -s INT "$child" 2>/dev/null' INT TERM HUP
wait "$child"
code=$?
# A signal ends the wait, and not the child.
while kill -0 "$child" 2>/dev/null; do
    wait "$child"
    code=$?
done
wait "$logger"
case $code in
    0) if [ -n "$DRY_RUN" ]; then say "nothing was done: it was a dry run"; else say "$FILE is live on $ROUTE"; fi ;;
    2) say "$FILE was refused, or rolled back: users have the model before it" ;;
    75 | 130) say "not over: a rollout that was begun goes on by itself, and the same call attaches to it" ;;
    *) say "not done: exit code $code" ;;
esac
exit "$code"
