#!/usr/bin/perl
# services/examples/ordered.pl with an error: `rogue.pl EXAMPLE KIND N [USER]` violates the protocol
# at one of N orders to accept, in the way that KIND names; with the kind "early" before the first
# order. The kind "old" is no error: children before SpamAssassin 4 write their process ID in this way.
use strict;
use warnings;
no warnings 'redefine';

use Mail::SpamAssassin::SpamdForkScaling;

# The master's options come first; "-s" and others have a value.
my $at = 0;
$at += $ARGV[$at] =~ /^-[nost]$/ ? 2 : 1 while $at < @ARGV && $ARGV[$at] =~ /^-/;
my ($example, $kind, $n) = splice @ARGV, $at, 3;

my $say = \&Mail::SpamAssassin::SpamdForkScaling::report_backchannel_socket;
my $wait = \&Mail::SpamAssassin::SpamdForkScaling::wait_for_orders;

my %misbehave = (
    letter => sub { $say->($_[0], "X....\n") },
    turn => sub { $_[0]->update_child_status_idle() },
    half => sub { $say->($_[0], "B..") },
    flood => \&flood,
    silent => sub { },
    hangup => sub { POSIX::close(5) },
    deaf => sub { open(my $channel, '+<&=', 5); shutdown($channel, 0) },
    stop => sub { kill STOP => $$ },
    die => sub { kill KILL => $$ },
    early => undef,
    old => undef,
);
exists $misbehave{$kind} or die "$0: unknown kind: $kind\n";

if ($kind eq 'old') {
    my $old = sub { $_[1] . pack('N', $_[0]{pid}) . "\n" };
    *Mail::SpamAssassin::SpamdForkScaling::update_child_status_idle =
        sub { $say->($_[0], $old->($_[0], 'I')) };
    *Mail::SpamAssassin::SpamdForkScaling::update_child_status_busy =
        sub { $say->($_[0], $old->($_[0], 'B')) };
}
elsif ($kind eq 'early') {
    *Mail::SpamAssassin::SpamdForkScaling::update_child_status_idle = sub {
        $say->($_[0], "X....\n");
        sleep 1 while 1;    # until it is ended
    };
}
else {
    *Mail::SpamAssassin::SpamdForkScaling::wait_for_orders = sub {
        my ($self) = @_;
        my $order = $wait->($self);
        if (rand($n) < 1) {
            $misbehave{$kind}->($self);
            sleep 1 while 1;    # until it is ended
        }
        return $order;
    };
}

# A megabyte of garbage, or as much as the master reads.
sub flood {
    my $left = 1 << 20;
    while ($left > 0) {
        my $written = POSIX::write(5, 'X' x 4096, 4096);
        last if !defined $written && !$!{EAGAIN};
        $left -= $written // 0;
    }
}

do $example or die $@ || "$example: $!";
