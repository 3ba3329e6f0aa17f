#!/usr/bin/perl
# A child of an ordered pool, in Perl; SpamAssassin's own module talks to the master. It greets each
# client with its process ID and repeats one line that the client sends.
#
#   master.cf     127.0.0.1:7007 inet n n n - 5 ordered.pl nobody
#   master.toml   [service."127.0.0.1:7007/inet"]
#                 accept = "ordered"
#
# Expensive preparation (modules, rules, a model) belongs before the loop: it is done once for each
# child, and clients reach only children that have finished it.
use strict;
use warnings;

use Getopt::Std;
use IO::Socket;
use POSIX ();

use Mail::SpamAssassin::SpamdForkScaling qw(:pfstates);
use Mail::SpamAssassin::SubProcBackChannel;

# After this many clients the child leaves and is replaced, which frees leaked memory.
use constant CLIENTS => 10_000;
# Maximum time for a client, in seconds.
use constant TIMEOUT => 60;

# The master's options; "-s" is the number of listeners. Our own argument follows: a user.
my %option;
getopts('cdln:o:s:t:uvz', \%option) or die "$0: unknown option\n";
my ($user) = @ARGV;
become($user) if defined $user;

# Descriptor 5 is the channel to the master; the listeners begin at 6.
my $channel = Mail::SpamAssassin::SubProcBackChannel->new();
$channel->{parent} = IO::Socket->new_from_fd(5, 'r+') or die "$0: no master: $!\n";
$channel->{parent}->blocking(0);
my @listeners = map { IO::Socket->new_from_fd(6 + $_, 'r+') || die "$0: no listener: $!\n" }
    0 .. ($option{s} || 1) - 1;

my $scaling = Mail::SpamAssassin::SpamdForkScaling->new({ backchannel => $channel });
$scaling->set_my_pid($$);

for (1 .. CLIENTS) {
    $scaling->update_child_status_idle();
    $scaling->wait_for_orders();    # leaves when the master does
    my $client = accept_one();
    # Report even without a client, because another child may have been faster.
    $scaling->update_child_status_busy();
    serve($client) if $client;
}

# Accepts a client, if one waits: the listeners are non-blocking.
sub accept_one {
    for my $listener (@listeners) {
        my $client = $listener->accept();
        return $client if $client;
        exit if $!{EINVAL};    # the listener was shut down
    }
    return;
}

sub serve {
    my ($client) = @_;
    eval {
        local $SIG{ALRM} = sub { die "timeout\n" };
        local $SIG{PIPE} = 'IGNORE';
        alarm TIMEOUT;
        $client->autoflush(1);
        print {$client} "$$\n";
        my $line = <$client>;
        print {$client} $line if defined $line;
        1;
    } or warn "$0: $@";
    alarm 0;
    close $client;
}

# Gives up root's privileges permanently.
sub become {
    my ($name) = @_;
    my ($uid, $gid) = (getpwnam $name)[2, 3] or die "$0: no user $name\n";
    $) = "$gid $gid";
    POSIX::setgid($gid) or die "$0: setgid: $!\n";
    POSIX::setuid($uid) or die "$0: setuid: $!\n";
}
