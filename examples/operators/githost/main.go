// What stands around the VMs of the rehearsal: a git host with basic authentication, and a stable cluster's services.
//
// usage: githost REPOSITORIES USER PASSWORD_FILE
package main

import (
	"crypto/subtle"
	"fmt"
	"log"
	"net/http"
	"net/http/cgi"
	"os"
	"strings"
)

func main() {
	repositories, user := os.Args[1], os.Args[2]
	password, err := os.ReadFile(os.Args[3])
	if err != nil {
		log.Fatal(err)
	}
	known := func(value, expected string) bool {
		return subtle.ConstantTimeCompare([]byte(value), []byte(expected)) == 1
	}
	git := &cgi.Handler{
		Path: "/usr/lib/git-core/git-http-backend",
		Root: "/scm",
		Env:  []string{"GIT_PROJECT_ROOT=" + repositories, "GIT_HTTP_EXPORT_ALL=1"},
	}
	go func() {
		log.Fatal(http.ListenAndServe(":8001", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintln(w, `{"branch":"stable"}`)
		})))
	}()
	log.Fatal(http.ListenAndServe(":8000", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, secret, _ := r.BasicAuth()
		if !known(name, user) || !known(secret, strings.TrimSpace(string(password))) {
			w.Header().Set("WWW-Authenticate", `Basic realm="scm"`)
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		git.ServeHTTP(w, r)
	})))
}
