(ns jepsen.troth.remote
  "A Jepsen remote whose nodes are network namespaces of this machine, named like the nodes. They
  share its files and its processes; what is started on a node is in the node's network. Knows
  nothing of Troth. See README.md."
  (:require [clojure.java.shell :as shell]
            [jepsen.control.core :as core]))

(defn command
  "The words that run the shell command `cmd` in the network namespace `node`."
  [node cmd]
  ["nsenter" (str "--net=/run/netns/" node) "--" "sh" "-c" cmd])

(defn- copy!
  "Files of one node are files of all."
  [from to]
  (let [done (apply shell/sh (concat ["cp" "-r"] (flatten [from]) [to]))]
    (when-not (zero? (:exit done))
      (throw (ex-info (str "can't copy: " (:err done)) done)))))

(defrecord Namespaces [node]
  core/Remote
  (connect [this conn-spec]
    (assoc this :node (:host conn-spec)))
  (disconnect! [this]
    (dissoc this :node))
  (execute! [_ _ action]
    (let [done (apply shell/sh (concat (command node (:cmd action))
                                       (when-let [in (:in action)] [:in in])))]
      (merge action (select-keys done [:exit :out :err]))))
  (upload! [_ _ local-paths remote-path _]
    (copy! local-paths remote-path))
  (download! [_ _ remote-paths local-path _]
    (copy! remote-paths local-path)))

(defn namespaces
  "The remote, not yet connected."
  []
  (->Namespaces nil))
