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

# Installs units $(1) of folder $(2) in folder $(3); they run the programs in $(bindir).
define install-units
for unit in $(1); do \
    sed 's|/usr/bin/|$(bindir)/|' "$(2)/$$unit" > "$(3)/$$unit" && \
    chmod 644 "$(3)/$$unit" || exit; \
done
endef

all:
	cargo build --release --locked -p wg-rs -p wg-quick-rs

# This does not build anything, as another user may have built the programs.
install:
	install -d $(to)$(bindir) $(to)$(mandir)/man7 $(to)$(mandir)/man8 $(to)$(unitdir) $(to)$(userunitdir) $(to)$(bashdir) $(to)$(zshdir) $(to)$(fishdir)
	install -m 755 $(programs:%=$(target)/%) $(to)$(bindir)
	install -m 644 man/*.7 $(to)$(mandir)/man7
	install -m 644 man/*.8 $(to)$(mandir)/man8
	$(call install-units,$(units),wg-quick-rs/systemd,$(to)$(unitdir))
	$(call install-units,$(userunits),wg-quick-rs/systemd-user,$(to)$(userunitdir))
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
