;; Reads and compiles the suite with nothing but Clojure: of Jepsen there are stand-ins, made from
;; what the suite asks for by name, with its protocols' real methods. Then tries what is pure in it.
;; That Jepsen itself means the same by those names, this refuses to know. See README.md.
(require '[clojure.java.io :as io] '[clojure.string :as str] '[clojure.walk :as walk])

(def here (.getParentFile (.getCanonicalFile (io/file *file*))))

(defn forms
  "All forms of a file; an exception names the file."
  [file]
  (with-open [in (java.io.PushbackReader. (io/reader file))]
    (binding [*read-eval* false]
      (try (doall (take-while #(not= ::end %) (repeatedly #(read {:eof ::end} in))))
           (catch Exception e
             (throw (ex-info (str file ": " (.getMessage e)) {} e)))))))

;; Stand-ins

(def protocols
  "As in Jepsen 0.3.13."
  '{jepsen.control.core [(Remote (connect [r spec]) (disconnect! [r]) (execute! [r context action])
                                 (upload! [r context from to opts])
                                 (download! [r context from to opts]))]
    jepsen.client       [(Client (open! [c test node]) (close! [c test]) (setup! [c test])
                                 (invoke! [c test op]) (teardown! [c test]))]
    jepsen.db           [(DB (setup! [d test node]) (teardown! [d test node]))
                         (Kill (kill! [d test node]) (start! [d test node]))
                         (Pause (pause! [d test node]) (resume! [d test node]))
                         (LogFiles (log-files [d test node]))]})

(defn requires
  "{alias namespace} of a file's ns form."
  [[ns-form]]
  (into {} (for [clause (rest ns-form) :when (and (seq? clause) (= :require (first clause)))
                 [name & {alias :as}] (rest clause)]
             [alias name])))

(defn ours? [name] (str/starts-with? (str name) "jepsen.troth"))
(defn jepsens? [name] (and (str/starts-with? (str name) "jepsen.") (not (ours? name))))

(defn used
  "#{[namespace symbol]} of Jepsen's that the forms name. An alias that is not required is an error."
  [file all]
  (let [aliases (requires all), found (atom #{})]
    (walk/postwalk
     (fn [x]
       (when-let [alias (and (symbol? x) (some-> (namespace x) symbol))]
         (let [name (aliases alias)]
           (cond (jepsens? name) (swap! found conj [name (symbol (clojure.core/name x))])
                 (and (nil? name) (not (re-find #"[A-Z]" (str alias))))
                 (throw (ex-info (str file ": " x ": no such alias") {})))))
       x)
     (rest all))
    @found))

(defn stand-in!
  [[name symbols]]
  (let [space (create-ns name)]
    (doseq [protocol (protocols name)]
      (binding [*ns* space]
        (refer-clojure)
        (eval (cons 'defprotocol protocol))))
    (doseq [s symbols :when (not (ns-resolve space s))]
      (intern space s (fn [& _] nil)))
    (dosync (commute @#'clojure.core/*loaded-libs* conj name))))

;; The suite

(def sources
  (->> (file-seq (io/file here "src")) (filter #(str/ends-with? (str %) ".clj")) sort))
(def read-forms (into {} (for [file (cons (io/file here "project.clj") sources)] [file (forms file)])))
(def asked
  (reduce (fn [m [name s]] (update m name (fnil conj #{}) s))
          (into {} (for [file sources, name (vals (requires (read-forms file))) :when (jepsens? name)]
                     [name #{}]))
          (mapcat #(used % (read-forms %)) sources)))
(run! stand-in! asked)
(intern 'jepsen.tests 'noop-test {})

(defn order
  "Of our namespaces, those first that others require."
  [left done]
  (when (seq left)
    (let [ready (filter #(every? (set done) (filter ours? (vals (requires (read-forms %))))) left)]
      (assert (seq ready) "our namespaces require each other in a circle")
      (concat ready (order (remove (set ready) left)
                           (concat done (map #(second (first (read-forms %))) ready)))))))
(doseq [file (order sources [])]
  (load-file (str file))
  (dosync (commute @#'clojure.core/*loaded-libs* conj (second (first (read-forms file))))))

;; What is pure in it

(defn is [what wanted got]
  (when (not= wanted got)
    (throw (ex-info (str what ": wanted " (pr-str wanted) ", got " (pr-str got)) {}))))

(defn call [name & arguments] (apply @(resolve (symbol (str "jepsen.troth." name))) arguments))

(is "a request" "[0,\"txn\",3000,\"applied\",\"read-committed\",\"\",[[\"n2\",[[\"add\",1,-5]]]]]"
    (call "client/request" [["n2" ["add" 1 -5]]]))
(is "an answer" {:type :ok, :results [[1 2] []], :words ""}
    (call "client/answer" "[0,\"ok\",\"jepsen-1.1-2.3\",[[1,2],[]],\"\"]"))
(is "the answer before it" nil (call "client/answer" "[0,\"begun\",\"jepsen-1.1-2.3\"]"))
(is "a place" ["n3" 2] (call "workload/place" ["n2" "n3"] 5))
(is "a transfer" [["n3" ["add" 0 3]] ["n2" ["add" 2 -3]]]
    (call "workload/bank-works" ["n2" "n3"] {:f :transfer, :value {:from 4, :to 1, :amount 3}}))
(is "a read of the bank" {0 10, 2 11, 1 20, 3 21}
    (call "workload/bank-value" ["n2" "n3"] {:f :read} [[10 11] [20 21]]))
(is "appends and reads" [["n2" ["append" 0 7]] ["n3" ["lock-read" 1 0]]]
    (call "workload/append-works" ["n2" "n3"] {:value [[:append 0 7] [:r 3 nil]]}))
(is "what was read" [[:append 0 7] [:r 3 [1 2]]]
    (call "workload/append-value" {:value [[:append 0 7] [:r 3 nil]]} [[] [1 2]]))
(is "a node's command" ["nsenter" "--net=/run/netns/n1" "--" "sh" "-c" "true"]
    (call "remote/command" "n1" "true"))

(println (str "clojure: files=" (count read-forms) " forms=" (count (mapcat val read-forms))
              " names=" (count (mapcat val asked))))
