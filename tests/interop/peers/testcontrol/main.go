// Command testcontrol serves Tailscale's own control server for tests, with a small HTTP admin beside it.
//
// The admin (on -admin) takes: GET /nodes; POST /expire?on=true|false; POST /map?key=nodekey:… with a raw MapResponse as
// its body; POST /routes?key=…&route=CIDR; POST /authpath?url=…; POST /ping?key=… with a PingRequest; POST /fakenode.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"

	"tailscale.com/tailcfg"
	"tailscale.com/tstest/integration/testcontrol"
	"tailscale.com/types/key"
)

var (
	listen   = flag.String("listen", "127.0.0.1:8080", "address of the control server")
	url      = flag.String("url", "", "base URL that nodes use")
	admin    = flag.String("admin", "127.0.0.1:8081", "address of the admin")
	derpMap  = flag.String("derp-map", "", "file with a tailcfg.DERPMap")
	domain   = flag.String("magic-dns-domain", "tailnet.test", "MagicDNS suffix")
	auth     = flag.Bool("require-auth", false, "want an interactive login")
	authKey  = flag.String("require-auth-key", "", "want this auth key")
	sameUser = flag.Bool("same-user", true, "all nodes belong to one user")
	verbose  = flag.Bool("verbose", false, "log what the control server logs")
)

func nodeKey(r *http.Request) (k key.NodePublic, err error) {
	err = k.UnmarshalText([]byte(r.FormValue("key")))
	return k, err
}

func main() {
	flag.Parse()
	var dm tailcfg.DERPMap
	text, err := os.ReadFile(*derpMap)
	if err != nil {
		log.Fatalf("testcontrol: -derp-map: %v", err)
	}
	if err := json.Unmarshal(text, &dm); err != nil {
		log.Fatalf("testcontrol: -derp-map: %v", err)
	}
	srv := &testcontrol.Server{
		DERPMap: &dm, ExplicitBaseURL: *url, MagicDNSDomain: *domain, RequireAuth: *auth, RequireAuthKey: *authKey,
		AllNodesSameUser: *sameUser, DNSConfig: &tailcfg.DNSConfig{Proxied: true}, Verbose: *verbose, AllOnline: true,
	}
	if !*verbose {
		srv.Logf = func(string, ...any) {}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /nodes", func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(srv.AllNodes())
	})
	mux.HandleFunc("POST /expire", func(w http.ResponseWriter, r *http.Request) {
		srv.SetExpireAllNodes(r.FormValue("on") == "true")
	})
	withKey := func(f func(key.NodePublic, *http.Request) error) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			k, err := nodeKey(r)
			if err == nil {
				err = f(k, r)
			}
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
			}
		}
	}
	mux.HandleFunc("POST /map", withKey(func(k key.NodePublic, r *http.Request) error {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return err
		}
		mr := new(tailcfg.MapResponse)
		if err := json.Unmarshal(body, mr); err != nil {
			return err
		}
		if !srv.AddRawMapResponse(k, mr) {
			return fmt.Errorf("no stream of that node")
		}
		return nil
	}))
	mux.HandleFunc("POST /ping", withKey(func(k key.NodePublic, r *http.Request) error {
		pr := new(tailcfg.PingRequest)
		if err := json.NewDecoder(r.Body).Decode(pr); err != nil {
			return err
		}
		if !srv.AddPingRequest(k, pr) {
			return fmt.Errorf("no stream of that node")
		}
		return nil
	}))
	mux.HandleFunc("POST /routes", withKey(func(k key.NodePublic, r *http.Request) error {
		var routes []netip.Prefix
		for _, text := range r.Form["route"] {
			p, err := netip.ParsePrefix(text)
			if err != nil {
				return err
			}
			routes = append(routes, p)
		}
		srv.SetSubnetRoutes(k, routes)
		return nil
	}))
	mux.HandleFunc("POST /authpath", func(w http.ResponseWriter, r *http.Request) {
		if !srv.CompleteAuth(r.FormValue("url")) {
			http.Error(w, "no such login", http.StatusNotFound)
		}
	})
	mux.HandleFunc("POST /fakenode", func(w http.ResponseWriter, r *http.Request) { srv.AddFakeNode() })
	go func() { log.Fatal(http.ListenAndServe(*admin, mux)) }()
	ln, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatalf("testcontrol: %v", err)
	}
	fmt.Println("listening on", ln.Addr())
	log.Fatal(http.Serve(ln, srv))
}
