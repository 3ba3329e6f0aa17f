#!/usr/bin/perl
# A child of an ordered pool that does as little as possible, so that the parent's cost is measured.
# SpamAssassin's own module talks to the parent. For a useful example see
# services/examples/ordered.pl.
use strict;
use warnings;

use IO::Socket;

use Mail::SpamAssassin::SpamdForkScaling qw(:pfstates);
use Mail::SpamAssassin::SubProcBackChannel;

my $channel = Mail::SpamAssassin::SubProcBackChannel->new();
$channel->{parent} = IO::Socket->new_from_fd(5, 'r+') or die "$0: no parent: $!\n";
$channel->{parent}->blocking(0);
open my $listener, '+<&=', 6 or die "$0: no listener: $!\n";

my $scaling = Mail::SpamAssassin::SpamdForkScaling->new({ backchannel => $channel });
$scaling->set_my_pid($$);
$SIG{PIPE} = 'IGNORE';

while (1) {
    $scaling->update_child_status_idle();
    $scaling->wait_for_orders();    # leaves when the parent does
    my $came = accept(my $client, $listener);
    $scaling->update_child_status_busy();
    next if !$came;
    syswrite $client, "$$\n";
    close $client;
}
