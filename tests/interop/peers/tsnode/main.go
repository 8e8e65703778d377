// Command tsnode is a whole Tailscale node without root (tsnet): it echoes TCP on port 7 and prints its state as JSON.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"io"
	"log"
	"os"
	"time"

	"tailscale.com/tsnet"
)

func main() {
	url := flag.String("url", "", "control server")
	authKey := flag.String("authkey", "", "auth key")
	hostname := flag.String("hostname", "tsnode", "host name")
	dir := flag.String("dir", "", "state directory")
	dial := flag.String("dial", "", "after joining, send standard input's text to HOST:PORT of the tailnet, print the answer, exit")
	flag.Parse()
	s := &tsnet.Server{Dir: *dir, Hostname: *hostname, AuthKey: *authKey, ControlURL: *url, Logf: func(string, ...any) {}}
	defer s.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	status, err := s.Up(ctx)
	if err != nil {
		log.Fatalf("tsnode: %v", err)
	}
	json.NewEncoder(os.Stdout).Encode(map[string]any{"state": status.BackendState, "ips": status.TailscaleIPs})
	if *dial != "" {
		c, err := s.Dial(ctx, "tcp", *dial)
		if err != nil {
			log.Fatalf("tsnode: %v", err)
		}
		text, _ := io.ReadAll(os.Stdin)
		go c.Write(text)
		answer := make([]byte, len(text))
		if _, err := io.ReadFull(c, answer); err != nil {
			log.Fatalf("tsnode: %v", err)
		}
		os.Stdout.Write(answer)
		return
	}
	ln, err := s.Listen("tcp", ":7")
	if err != nil {
		log.Fatalf("tsnode: %v", err)
	}
	for {
		c, err := ln.Accept()
		if err != nil {
			log.Fatalf("tsnode: %v", err)
		}
		go func() { defer c.Close(); io.Copy(c, c) }()
	}
}
