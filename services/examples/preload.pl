#!/usr/bin/perl
# A preloaded service, in Perl: a template that forks children. A child greets each client with its
# process ID and repeats one line that the client sends.
#
#   master.cf     127.0.0.1:7010 inet n n n - 5 preload.pl nobody
#   master.toml   [service."127.0.0.1:7010/inet"]
#                 preload = true
#                 accept = "ordered"      # or without this line
#
# Expensive preparation (modules, rules) belongs before forked(): it is done once, and its memory is
# shared by all children.
use strict;
use warnings;

use Getopt::Std;
use IO::Handle;
use IO::Poll;
use IO::Socket;
use POSIX ();
use Socket qw(MSG_WAITALL);

# After this many clients, and (of children that share the listener) after this time without one, in
# seconds, a child leaves and is replaced.
use constant CLIENTS => 10_000;
use constant IDLE => 100;
# Maximum time for a client, in seconds.
use constant TIMEOUT => 60;

# The master's options; "-s" is the number of listeners. Our own argument follows: a user.
my %option;
getopts('cdln:o:s:t:uvz', \%option) or die "$0: unknown option\n";
my $socket = delete $ENV{MASTER_TEMPLATE}
    or die "$0: not preloaded: write preload = true in master.toml\n";
my @listeners = map { IO::Socket->new_from_fd(6 + $_, 'r+') || die "$0: no listener: $!\n" }
    0 .. ($option{s} || 1) - 1;
# Descriptor 5 is the template's channel, and then the child's.
my $master = IO::Socket->new_from_fd(5, 'r+') or die "$0: no master: $!\n";
$master->autoflush(1);

my ($generation, %word) = forked();
become($ARGV[0]) if @ARGV;
$_->blocking(0) for @listeners;
($word{accept} eq 'ordered' ? \&ordered : \&shared)->();

# Forks children on order. Returns in each child, with the order.
sub forked {
    print {$master} "ready\n";
    while (my $line = <$master>) {
        my (undef, $generation, @words) = split ' ', $line;
        my $connection = IO::Socket::UNIX->new(Peer => $socket);
        my $pid = $connection ? fork : undef;
        if (!defined $pid) {
            print {$master} "failed $!\n";
            next;
        }
        if ($pid == 0) {
            # The child is the master's when its own parent has ended.
            my $child = fork;
            POSIX::_exit(defined $child ? 0 : 1) if $child || !defined $child;
            known($connection);
            return (oct $generation, map { split /=/, $_, 2 } @words);
        }
        close $connection;
        waitpid $pid, 0;
        print {$master} $? ? "failed to fork\n" : "forked\n";
    }
    exit;    # the master has ended, or has another template
}

# Has the master know this process. The connection becomes descriptor 5.
sub known {
    my ($connection) = @_;
    POSIX::close($socket =~ m{(\d+)\z});
    POSIX::dup2(fileno $connection, 5);
    close $connection;
    say_all("hello\n");
    POSIX::_exit(0) if hear(6) ne "known\n";
    say_all("ready\n");
    srand;
}

sub say_all {
    my ($message) = @_;
    return (POSIX::write(5, $message, length $message) || 0) == length $message;
}

# A message of this length; less at end of file.
sub hear {
    my ($length) = @_;
    my $message = '';
    recv $master, $message, $length, MSG_WAITALL;
    return $message;
}

# Serves clients when the master orders it.
sub ordered {
    for (1 .. CLIENTS) {
        say_all('I' . pack('l', $$) . "\n");
        my $order;
        do {
            $order = hear(6);
            exit if length $order < 6;    # the master has ended, or tells this child to leave
        } until $order =~ /^A/;           # others are pings
        my $client = accept_one();
        # Report even without a client, because another child may have been faster.
        say_all('B' . pack('l', $$) . "\n");
        serve($client) if $client;
    }
}

# Serves clients as they come.
sub shared {
    my $poll = IO::Poll->new();
    $poll->mask($_ => POLLIN) for $master, @listeners;
    for (1 .. CLIENTS) {
        my $ready = $poll->poll(IDLE);
        exit if $ready == 0 || $poll->events($master);
        my $client = accept_one() or next;
        report(0);
        serve($client);
        report(1);
    }
}

sub report {
    my ($available) = @_;
    say_all(pack 'lLl', $$, $generation, $available);
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
