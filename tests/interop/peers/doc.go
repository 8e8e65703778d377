// Package peers pins the real peers that Buri is tested against: Tailscale's own commands as Go tools, and small programs
// on its published libraries.
package peers
