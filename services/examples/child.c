/* A child of master(8) that returns its clients' text in capitals, one client at a time.
 * See master-protocol(7). The table: shout inet n y n - - child -o max_idle=100 -o max_use=100 */
#include <ctype.h>
#include <errno.h>
#include <grp.h>
#include <poll.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <syslog.h>
#include <unistd.h>

#define REQUIRE(fact) (void)((fact) || (syslog(LOG_MAIL | LOG_ERR, "%s: %m", #fact), exit(1), 0))
enum { STATUS = 5, TAKEN = 0, AVAILABLE = 1 };
static struct timeval timeout = { 60, 0 }; /* for reading from and writing to a client */

static void report(int available) {
    int record[] = { getpid(), strtoul(getenv("GENERATION"), NULL, 8), available };
    if (write(STATUS, record, sizeof record) < 0) return; /* poll() shows that, too */
}

static int serve(int listener) {
    char text[4096];
    int size = snprintf(text, sizeof text, "hello from %d\n", getpid());
    int client = accept(listener, NULL, NULL);
    if (client < 0 && errno == EAGAIN) return 0; /* another child was faster */
    if (client < 0 && errno == EINVAL) exit(0); /* the listener was shut down: leave */
    REQUIRE(client >= 0);
    report(TAKEN);
    REQUIRE(!setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout));
    REQUIRE(!setsockopt(client, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout));
    while (write(client, text, size) == size && (size = read(client, text, sizeof text)) > 0)
        for (int i = 0; i < size; i++) text[i] = toupper((unsigned char)text[i]);
    close(client);
    report(AVAILABLE);
    return 1;
}

int main(int argc, char **argv) {
    const char *given[128] = { ['s'] = "1" };
    int max_idle = 100, max_use = 100;
    for (int o; (o = getopt(argc, argv, "+lzdvucn:t:o:s:")) != -1; given[o] = optarg ? optarg : "")
        if (o == 'o' && !sscanf(optarg, "max_idle=%d", &max_idle) &&
            !sscanf(optarg, "max_use=%d", &max_use))
            sscanf(optarg, "timeout=%ld", &timeout.tv_sec);
    struct stat private; /* the directory belongs to mail_owner */
    struct passwd *user = given['u'] && !stat("private", &private) ? getpwuid(private.st_uid) : 0;
    REQUIRE(getenv("GENERATION") && !given['?'] && (user || !given['u']));
    REQUIRE(!given['c'] || !chroot("."));
    REQUIRE(!user || !(setgroups(1, &user->pw_gid) || setgid(user->pw_gid) || setuid(user->pw_uid)));
    int count = 1 + atoi(given['s']); struct pollfd ready[count];
    for (int n = 0; n < count; n++) ready[n] = (struct pollfd){ STATUS + n, POLLIN, 0 };
    while (max_use > 0 && poll(ready, count, max_idle * 1000) > 0 && !ready[0].revents)
        for (int n = 1; n < count; n++)
            if (ready[n].revents) max_use -= serve(ready[n].fd);
}
