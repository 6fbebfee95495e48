(ns jepsen.troth.db
  "Puts Troth onto nodes: the coordinator on the first, on each other node a PostgreSQL server and
  its participant. Kill and pause are those of Troth's processes; PostgreSQL has its own life."
  (:require [clojure.string :as str]
            [jepsen.control :as c]
            [jepsen.control.net :as net]
            [jepsen.control.util :as cu]
            [jepsen.db :as db]
            [jepsen.troth.workload :as workload]))

(def client-port 7711)
(def peer-port 7712)
(def work-port 7721)
(def branch-peer-port 7722)
(def postgres-port 5432)
(def postgres-bin "/usr/lib/postgresql/15/bin")

(defn coordinator-node [test] (first (:nodes test)))
(defn coordinator? [test node] (= node (coordinator-node test)))

(defn participants
  "Their names: those of the nodes they are on."
  [nodes]
  (vec (rest nodes)))

(defn dir [node] (str "/tmp/troth-jepsen/" node))
(defn pidfile [node] (str (dir node) "/pid"))
(defn logfile [node] (str (dir node) "/troth.log"))

(defn conninfo [node]
  (str "host=" (net/ip node) " port=" postgres-port " user=postgres dbname=postgres"))

(defn as-postgres!
  "Runs a shell line as PostgreSQL's owner."
  [line]
  (c/exec :runuser :-u "postgres" :-- "sh" :-c line))

(defn setup-postgres!
  [bin node]
  (let [data (str (dir node) "/postgres")]
    (c/exec :install :-d :-o "postgres" data)
    (as-postgres! (str postgres-bin "/initdb -D " data " -A trust -U postgres --no-sync"))
    (as-postgres! (str "echo 'host all all 10.77.0.0/16 trust' >> " data "/pg_hba.conf"))
    (as-postgres! (str postgres-bin "/pg_ctl -D " data " -w -l " data "/server.log -o \""
                       (str/join " " (for [[k v] {"listen_addresses"          (net/ip node)
                                                  "port"                      postgres-port
                                                  "unix_socket_directories"   data
                                                  "max_connections"           120
                                                  "max_prepared_transactions" 250}]
                                       (str "-c " k "=" v)))
                       "\" start"))
    (c/exec (str bin "/troth-jepsen-branch") :--init (str "--conninfo=" (conninfo node))
            (str "--accounts=" workload/accounts-each) (str "--balance=" workload/balance))))

(defn stop-postgres!
  [node]
  (let [data (str (dir node) "/postgres")]
    (when (cu/exists? (str data "/postmaster.pid"))
      (as-postgres! (str postgres-bin "/pg_ctl -D " data " -m immediate stop || true")))))

(defn- arguments
  "Of the node's process."
  [test node]
  (let [ip (net/ip node)]
    (if (coordinator? test node)
      [(str "--wal_dir=" (dir node) "/wal") (str "--host=" ip) (str "--client_port=" client-port)
       (str "--peer_port=" peer-port) "--lease_ms=8000"]
      [(str "--name=" node) (str "--host=" ip) (str "--port=" work-port)
       (str "--peer_port=" branch-peer-port) (str "--conninfo=" (conninfo node))
       (str "--coordinators=" (net/ip (coordinator-node test)) ":" peer-port)])))

(defn- program [test node]
  (if (coordinator? test node) "troth-coordinator" "troth-jepsen-branch"))

(defn signal!
  "To the node's process, by its pid: processes are seen from all nodes."
  [node number]
  (when (cu/exists? (pidfile node))
    (c/exec* "kill" (str "-" number) (str "$(cat " (pidfile node) ")") "||" "true")))

(defrecord Troth [bin]
  db/DB
  (setup! [this test node]
    (c/exec :mkdir :-p (dir node))
    (if (coordinator? test node)
      (c/exec (str bin "/troth-coordinator") :--init (str "--wal_dir=" (dir node) "/wal")
              "--name=jepsen")
      (setup-postgres! bin node))
    (db/start! this test node)
    (cu/await-tcp-port (if (coordinator? test node) client-port work-port)))
  (teardown! [this test node]
    (db/kill! this test node)
    (when-not (coordinator? test node) (stop-postgres! node))
    (c/exec :rm :-rf (dir node)))

  db/Kill
  (start! [_ test node]
    ;; The pid file decides whether it runs: other nodes run the same program.
    (apply cu/start-daemon! {:chdir (dir node), :logfile (logfile node), :pidfile (pidfile node)}
           (str bin "/" (program test node)) (arguments test node)))
  (kill! [_ _ node]
    (signal! node "KILL")
    (c/exec :rm :-f (pidfile node)))

  db/Pause
  (pause! [_ _ node] (signal! node "STOP"))
  (resume! [_ _ node] (signal! node "CONT"))

  db/LogFiles
  (log-files [_ test node]
    (if (coordinator? test node)
      [(logfile node)]
      [(logfile node) (str (dir node) "/postgres/server.log")])))
