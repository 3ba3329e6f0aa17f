#!/bin/dash
# A child of master(8) for type fifo, which runs a command when data is written to the FIFO. Its
# duties are described in master-protocol(7). In the table, with its limits:
#
#     reindex  fifo  n  y  n  300  1  child.sh -o max_idle=100 -o max_use=100 make -C /srv/index
#
# Not for bash: its printf splits a report that contains a newline into two writes.
set -eu

# Executes this file again in the same process.
become_mail_owner() {
    owner=$(stat -c %U private)
    test "$owner" != root
    exec setpriv --reuid "$owner" --regid "$(id -g "$owner")" --init-groups "$0" "$@"
}

# A number as a native int, in printf's escapes, for little-endian machines.
int() {
    for shift in 0 8 16 24; do
        printf '\\%03o' $(($1 >> shift & 255))
    done
}

# If this fails, it is time to leave; the loop below sees that, too.
report() {
    printf "$(int $$)$(int $((0$GENERATION)))$(int "$1")" >&5 2>/dev/null || :
}

max_idle=100 max_use=100 idle=0 uses=0
while getopts lzdvucn:t:o:s: option; do
    case $option${OPTARG-} in
    omax_idle=*) max_idle=${OPTARG#*=} ;;
    omax_use=*) max_use=${OPTARG#*=} ;;
    u) if [ "$(id -u)" = 0 ]; then become_mail_owner "$@"; fi ;;
    c | \?) logger -p mail.err "child.sh: fatal: cannot do -$option"; exit 1 ;;
    esac
done
shift $((OPTIND - 1))

# The shell has no poll(2), so it polls once a second. All data in the FIFO is one request.
while [ $idle -lt "$max_idle" ] && [ $uses -lt "$max_use" ]; do
    if [ "$(dd bs=4096 count=1 <&6 2>/dev/null | wc -c)" != 0 ]; then
        report 0
        "$@" 3<&- 4<&- 5<&- 6<&- || logger -p mail.warning "child.sh: $1: exit status $?" || :
        report 1
        idle=0 uses=$((uses + 1))
    elif timeout 1 cat <&5; then
        exit 0 # not the time but the channel came to its end: the master wants us to leave
    else
        idle=$((idle + 1))
    fi
done
