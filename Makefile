# make && sudo make install            installs programs, pages, completions and units below /usr/local
# make install prefix=/usr DESTDIR=…   for packages
# sudo make uninstall

prefix = /usr/local
bindir = $(prefix)/bin
mandir = $(prefix)/share/man
# systemd looks for units below /usr/local and /usr. For another prefix: unitdir=/etc/systemd/system
unitdir = $(prefix)/lib/systemd/system
userunitdir = $(prefix)/lib/systemd/user
bashdir = $(prefix)/share/bash-completion/completions
zshdir = $(prefix)/share/zsh/site-functions
fishdir = $(prefix)/share/fish/vendor_completions.d
# Where the programs were built.
target = target/release

programs = wireguard-rs wg-rs wg-quick-rs
units = $(notdir $(wildcard wg-quick-rs/systemd/*))
userunits = $(notdir $(wildcard wg-quick-rs/systemd-user/*))
to = $(DESTDIR)

all:
	cargo build --release --locked -p wg-rs -p wg-quick-rs

# This does not build anything, as another user may have built the programs.
install:
	install -d $(to)$(bindir) $(to)$(mandir)/man7 $(to)$(mandir)/man8 $(to)$(unitdir) $(to)$(userunitdir) $(to)$(bashdir) $(to)$(zshdir) $(to)$(fishdir)
	install -m 755 $(programs:%=$(target)/%) $(to)$(bindir)
	install -m 644 man/*.7 $(to)$(mandir)/man7
	install -m 644 man/*.8 $(to)$(mandir)/man8
	for unit in $(units); do \
	    sed 's|/usr/bin/|$(bindir)/|' "wg-quick-rs/systemd/$$unit" > "$(to)$(unitdir)/$$unit" && \
	    chmod 644 "$(to)$(unitdir)/$$unit" || exit; \
	done
	for unit in $(userunits); do \
	    sed 's|/usr/bin/|$(bindir)/|' "wg-quick-rs/systemd-user/$$unit" > "$(to)$(userunitdir)/$$unit" && \
	    chmod 644 "$(to)$(userunitdir)/$$unit" || exit; \
	done
	install -m 644 wg-rs/completions/wg-rs $(to)$(bashdir)/wg-rs
	install -m 644 wg-quick-rs/completions/wg-quick-rs.bash $(to)$(bashdir)/wg-quick-rs
	install -m 644 wg-rs/completions/_wg-rs wg-quick-rs/completions/_wg-quick-rs $(to)$(zshdir)
	install -m 644 wg-rs/completions/wg-rs.fish wg-quick-rs/completions/wg-quick-rs.fish $(to)$(fishdir)

# This keeps config files, and tunnels that are up.
uninstall:
	rm -f $(programs:%=$(to)$(bindir)/%) $(programs:%=$(to)$(mandir)/man8/%.8)
	cd $(to)$(mandir)/man7 && rm -f $(notdir $(wildcard man/*.7))
	cd $(to)$(unitdir) && rm -f $(units)
	cd $(to)$(userunitdir) && rm -f $(userunits)
	rm -f $(to)$(bashdir)/wg-rs $(to)$(bashdir)/wg-quick-rs
	rm -f $(to)$(zshdir)/_wg-rs $(to)$(zshdir)/_wg-quick-rs
	rm -f $(to)$(fishdir)/wg-rs.fish $(to)$(fishdir)/wg-quick-rs.fish

.PHONY: all install uninstall
