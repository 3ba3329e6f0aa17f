#!/usr/bin/perl
# SpamAssassin's own parent, for comparison with our master: the module from Debian's package, in
# spamd's main loop, with the same children as under our master.
#
#   ordered-parent.pl PORT MIN_CHILDREN MIN_IDLE MAX_IDLE MAX_CHILDREN PROGRAM [ARGUMENT ...]
#
# Its children have descriptors 5 and 6 as under our master. SIGTERM ends it and its children.
use strict;
use warnings;

use IO::Socket::INET;
use POSIX qw(:sys_wait_h dup2);

use Mail::SpamAssassin::SpamdForkScaling qw(:pfstates);
use Mail::SpamAssassin::SubProcBackChannel;

# spamd's server-scale-period, in seconds.
use constant PERIOD => 2;

my ($port, $min_children, $min_idle, $max_idle, $max_children, @program) = @ARGV;
die "$0: see the comment at the beginning\n" if !@program;

my $listener = IO::Socket::INET->new(
    LocalAddr => '127.0.0.1',
    LocalPort => $port,
    Listen => 128,
    ReuseAddr => 1,
) or die "$0: port $port: $!\n";

my $channel = Mail::SpamAssassin::SubProcBackChannel->new();
my $selector = '';
$channel->set_selector(\$selector);
my $floor = $max_idle < $max_children ? $max_idle : $max_children;
$floor = $min_children if $floor < $min_children;
my $scaling = Mail::SpamAssassin::SpamdForkScaling->new({
    backchannel => $channel,
    min_children => $min_children,
    max_children => $max_children,
    min_idle => $min_idle,
    max_idle => $max_idle,
    cur_children_ref => \$floor,
});

my (%children, @ended);
$SIG{CHLD} = \&reap;
$SIG{TERM} = sub { kill INT => keys %children; exit 0 };

spawn() for 1 .. $floor;
$channel->add_to_selector($listener);
delete $channel->{fileno_to_fh}{ fileno $listener };    # no child's channel
$scaling->set_server_fh($listener);

while (1) {
    $scaling->main_server_poll(PERIOD);
    reap();
    while (defined(my $pid = shift @ended)) {
        delete $children{$pid};
        $scaling->child_exited($pid);
    }
    spawn() for keys(%children) + 1 .. $floor;
}

sub reap {
    while ((my $pid = waitpid -1, WNOHANG) > 0) {
        push @ended, $pid if $children{$pid};
    }
}

# The module calls this function when there are too few children.
sub spawn {
    $channel->setup_backchannel_parent_pre_fork();
    my $pid = fork;
    die "$0: fork: $!\n" if !defined $pid;
    if ($pid) {
        $children{$pid} = 1;
        $channel->setup_backchannel_parent_post_fork($pid);
        $scaling->add_child($pid);
        return $pid;
    }
    $SIG{CHLD} = $SIG{TERM} = 'DEFAULT';
    # High numbers, so that they do not conflict with the targets.
    my ($ours, $theirs) = map { fcntl_dup($_) } $channel->get_parent_socket(), $listener;
    dup2($ours, 5);
    dup2($theirs, 6);
    POSIX::close($_) for 7 .. 200;
    exec @program or die "$0: @program: $!\n";
}

# A copy of a descriptor with a high number.
sub fcntl_dup {
    my ($handle) = @_;
    require Fcntl;
    my $copy = fcntl $handle, Fcntl::F_DUPFD(), 200;
    return $copy;
}
