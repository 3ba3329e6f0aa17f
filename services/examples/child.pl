#!/usr/bin/perl
# A child of master(8) that returns its clients' text in capitals, one client at a time. Its duties
# are described in master-protocol(7). In the table, with its limits:
#
#     shout  inet  n  y  n  -  -  child.pl -o max_idle=100 -o max_use=100 -o timeout=60
use strict; use warnings;
use Getopt::Long qw(:config bundling require_order);
use IO::Select;
use POSIX qw(setgid setuid);
use Socket qw(SOL_SOCKET SO_RCVTIMEO SO_SNDTIMEO);
use Sys::Syslog;

my ($STATUS, $LISTEN, $TAKEN, $AVAILABLE) = (5, 6, 0, 1);
openlog('child.pl', 'ndelay,nofatal,pid', 'mail');
$SIG{__DIE__} = sub { syslog('err', 'fatal: %s', "@_") };
GetOptions(\my %given, qw(l z d v u c n=s t=s s=i o=s%)) or die 'unknown option';
my %limit = (max_idle => 100, max_use => 100, timeout => 60, %{ $given{o} // {} });
my ($status, @listeners) = map { inherited($_) } $STATUS, $LISTEN .. $LISTEN - 1 + ($given{s} // 1);
give_up_privileges();
while ($limit{max_use}-- > 0 and my $client = next_client()) {
    report($TAKEN);
    serve($client);
    close $client;
    report($AVAILABLE);
}

sub inherited { open my $file, '+<&=', $_[0] or die "descriptor $_[0]: $!"; $file }

sub give_up_privileges {
    my ($uid, $gid) = $given{u} ? (getpwuid +(stat 'private')[4])[2, 3] : ();    # mail_owner
    !$given{c} or chroot '.' or die "chroot: $!";
    return if !$given{u};
    $) = "$gid $gid";    # the effective group, and all others
    $) eq "$gid $gid" and setgid $gid and setuid $uid or die "cannot become user $uid: $!";
}

# If this fails, it is time to leave; next_client() sees that, too.
sub report { syswrite $status, pack 'iIi', $$, oct $ENV{GENERATION}, @_ }

sub next_client {
    while (my @ready = IO::Select->new($status, @listeners)->can_read($limit{max_idle})) {
        last if grep { $_ == $status } @ready;    # the master is gone, or wants us to leave
        my $accepted = accept my $client, $ready[rand @ready];
        return $accepted && $client if $accepted || $!{EINVAL};    # no: it was shut down
        $!{EAGAIN} or die "accept: $!";    # another child was faster
    }
    return;
}

sub serve {
    my ($client) = @_;
    my $limit = pack 'l!2', $limit{timeout}, 0;
    setsockopt $client, SOL_SOCKET, $_, $limit or die "$!" for SO_RCVTIMEO, SO_SNDTIMEO;
    my $text = "hello from $$\n";
    while ((syswrite($client, $text) // 0) == length $text) {
        sysread $client, $text, 4096 or return;
        $text = uc $text;
    }
}
